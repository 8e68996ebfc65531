# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech keys for a mesh that has none: a template face is fitted to it and its shape keys are transferred."""
