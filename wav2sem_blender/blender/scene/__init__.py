# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read and written of the scene: meshes, keys, actions, takes, drivers. No panel, no operator."""
