# SPDX-License-Identifier: GPL-3.0-or-later
import bpy

settings = bpy.context.scene.wav2sem

settings.strength = 0.75
settings.smoothing_s = 0.08
settings.delay_s = 0.0
