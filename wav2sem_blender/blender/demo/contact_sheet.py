# SPDX-License-Identifier: GPL-3.0-or-later
"""The contact sheet: twelve labelled frames of the face above the waveform and the opening of the lips.

Drawn with NumPy and Blender's text module (blf), as the demo's environment has nothing else. Images are (height,
width, 3) in 0..1 with the first row at the top.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import blf
import bpy
import imbuf
import numpy as np

from . import film
from .mouth import MouthMotion

COLUMNS, ROWS = 4, 3
TILE_PX = 320
LABEL_PX = 30
STRIP_PX = 200
MARGIN_PX = 36
PAPER = (0.97, 0.97, 0.95)
INK = (0.13, 0.15, 0.18)
WAVE = (0.66, 0.74, 0.78)
CURVE = (0.80, 0.33, 0.14)


def draw_contact_sheet(scene: bpy.types.Scene, mouth: MouthMotion, path: Path) -> None:
    """Render the frames and write the sheet as a PNG file."""
    chosen = choose_frames(mouth.aperture_mm_T, COLUMNS * ROWS)
    strip_y = ROWS * (TILE_PX + LABEL_PX)
    sheet = np.empty((strip_y + STRIP_PX, COLUMNS * TILE_PX, 3), dtype=np.float32)
    sheet[:] = PAPER
    labels: list[tuple[float, float, int, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        scene_frames = [mouth.first_scene_frame + frame for frame in chosen]
        stills = film.render_stills(scene, scene_frames, TILE_PX, Path(folder))
        for i, (frame, still) in enumerate(zip(chosen, stills, strict=True)):
            x, y = i % COLUMNS * TILE_PX, i // COLUMNS * (TILE_PX + LABEL_PX)
            sheet[y : y + TILE_PX, x : x + TILE_PX] = _read(still)
            aperture_mm = mouth.aperture_mm_T[frame]
            text = f"{i + 1}:  {frame / mouth.fps:.2f} s,  lips {aperture_mm:.1f} mm"
            labels.append((x + 10, y + TILE_PX + 21, 16, text))
        labels += _draw_strip(sheet[strip_y:], mouth, chosen, strip_y)
        _draw_labels(sheet, labels, Path(folder) / "labels.png")
    _write(sheet, path)


def choose_frames(aperture_mm_T: np.ndarray, n: int) -> list[int]:
    """Choose one frame from each of `n` equal parts, in turn the most open and the most closed."""
    edges = np.linspace(0, len(aperture_mm_T), n + 1).astype(int)
    chosen = []
    for i, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        part = aperture_mm_T[start : max(stop, start + 1)]
        chosen.append(int(start + (part.argmin() if i % 2 else part.argmax())))
    return chosen


def _draw_strip(
    strip: np.ndarray, mouth: MouthMotion, chosen: list[int], offset_px: int
) -> list[tuple[float, float, int, str]]:
    """Draw waveform, opening curve and the times of the chosen frames; returns labels, y from the top of the sheet."""
    height, width = strip.shape[0] - 2 * MARGIN_PX, strip.shape[1] - 2 * MARGIN_PX
    duration_s = max(mouth.speech_duration_s, len(mouth.aperture_mm_T) / mouth.fps)
    area = strip[MARGIN_PX : MARGIN_PX + height, MARGIN_PX : MARGIN_PX + width]
    edges = np.linspace(0, duration_s * mouth.rate_hz, width + 1).astype(int)
    loudest = max(float(np.abs(mouth.waveform_S).max()), 1e-9)
    highest_mm = max(float(mouth.aperture_mm_T.max()), 1.0)
    time_s_X = np.arange(width) / width * duration_s
    curve_X = np.interp(time_s_X, np.arange(len(mouth.aperture_mm_T)) / mouth.fps, mouth.aperture_mm_T) / highest_mm
    row_X = ((1 - curve_X) * (height - 3)).round().astype(int)
    for x in range(width):
        piece = mouth.waveform_S[edges[x] : edges[x + 1]]
        if len(piece):
            half = int(np.abs(piece).max() / loudest * (height / 2 - 1))
            area[height // 2 - half : height // 2 + half + 1, x] = WAVE
    labels = []
    for i, frame in enumerate(chosen):
        x = int(frame / mouth.fps / duration_s * width)
        area[::4, x] = INK
        labels.append((MARGIN_PX + x - 4.0, offset_px + MARGIN_PX - 10.0, 15, str(i + 1)))
    for x in range(width):
        low, high = sorted((row_X[max(x - 1, 0)], row_X[x]))
        area[low : high + 3, x] = CURVE
    text_y = offset_px + strip.shape[0] - 12.0
    labels.append((MARGIN_PX, text_y, 15, f"0 s; grey: the sound, orange: the lips' opening, 0 to {highest_mm:.1f} mm"))
    labels.append((MARGIN_PX + width - 46.0, text_y, 15, f"{duration_s:.2f} s"))
    return labels


def _draw_labels(sheet: np.ndarray, labels: list[tuple[float, float, int, str]], path: Path) -> None:
    """Draw text on the sheet; a label is (x, y of the baseline from the top, size in pixels, text)."""
    height, width, _ = sheet.shape
    canvas = imbuf.new((width, height))
    with blf.bind_imbuf(0, canvas, display_name="sRGB"):  # type: ignore[attr-defined, call-arg]
        blf.color(0, 1.0, 1.0, 1.0, 1.0)
        for x, y, size, text in labels:
            blf.size(0, size)
            blf.position(0, x, height - y, 0)
            blf.draw_buffer(0, text)
    imbuf.write(canvas, filepath=str(path))
    alpha = _read(path, channel=3)[..., None]
    sheet[:] = sheet * (1 - alpha) + np.array(INK, dtype=np.float32) * alpha


def _read(path: Path, channel: int | None = None) -> np.ndarray:
    """The stored colours of an image file, or one channel."""
    image: Any = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty(width * height * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    pixels = pixels.reshape(height, width, 4)[::-1]
    return pixels[..., :3] if channel is None else pixels[..., channel]


def _write(sheet: np.ndarray, path: Path) -> None:
    height, width, _ = sheet.shape
    image: Any = bpy.data.images.new("Contact Sheet", width, height)
    pixels = np.ones((height, width, 4), dtype=np.float32)
    pixels[..., :3] = sheet[::-1]
    image.pixels.foreach_set(pixels.ravel())
    image.file_format = "PNG"
    image.save(filepath=str(path))
    bpy.data.images.remove(image)
