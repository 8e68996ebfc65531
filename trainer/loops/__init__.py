# SPDX-License-Identifier: GPL-3.0-or-later
"""What is trained, one loop a module, and how a trained model leaves its run."""
