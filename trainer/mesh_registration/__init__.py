# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes of heads: ARKit's expressions on FLAME, and the face that the add-on carries to any head."""
