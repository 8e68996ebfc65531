# SPDX-License-Identifier: GPL-3.0-or-later
"""Head meshes: ARKit's expressions on FLAME, and the face that the add-on transfers to any head."""
