# SPDX-License-Identifier: GPL-3.0-or-later
"""Training: `python -m trainer VERB …`."""

from wav2sem_blender.offline import silence_libraries

# Before transformers, whose hub client would report each use.
silence_libraries()
