# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech keys for a mesh that has none: landmarks, a template face bent onto the mesh, lids, loose parts."""
