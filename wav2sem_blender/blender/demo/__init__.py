# SPDX-License-Identifier: GPL-3.0-or-later
"""`nox -s demo`: animates the demo head, renders a video, and measures the mouth."""
