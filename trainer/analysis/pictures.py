# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of an analysis, as PNG: t-SNE of near-homophones, apertures against sound, mouths in slow motion, error
maps, training curves.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. Whatever colour says, shape or position says
too.

Shapes: N points, S samples, T animation frames, V vertices, F triangles; of mouths: F columns, P points of a contour,
G triangles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ..speech.phones import BILABIALS, Timing
from ..speech.prepared import SAMPLE_RATE_HZ

DPI = 120
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
ENVELOPE_S = 0.01
SKIN, LIP, MOUTH, PAPER = "#DDB49E", "#B4545C", "#2A1012", "#F6F1EE"
MOUTH_VIEW_MM = ((-38, 38), (-56, 20))  # x and y around the middle of the mouth at rest
MOUTH_PX = 176


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Inner-lip opening above rest (T,) in millimetres, at `fps`."""

    name: str
    opening_mm_T: np.ndarray
    fps: float


@dataclass(frozen=True, kw_only=True)
class ShadedMouth:
    """The mesh around a mouth in F columns: vertices (F, V, 3) in millimetres, x to the character's left, y up, z
    forward; triangles (G, 3); and how far each vertex (V,) counts as lip and as inside of the mouth, 0..1."""

    vertices_mm_FV3: np.ndarray
    triangles_G3: np.ndarray
    lip_V: np.ndarray
    inside_V: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Mouth:
    """One face's lips in F columns, seen from the front, in millimetres from the middle of its mouth at rest.

    Attributes:
        outer_mm_FP2, inner_mm_FP2: the lips' contours, closed rings; NaN where the face was not found.
        chin_mm_FP2: a line along the chin, drawn if there is no mesh.
        opening_mm_F, width_mm_F: distance of the inner lips' middles, and of the corners, above rest.
        shaded: the mesh; without it the contours are filled.
    """

    name: str
    outer_mm_FP2: np.ndarray
    inner_mm_FP2: np.ndarray
    chin_mm_FP2: np.ndarray
    opening_mm_F: np.ndarray
    width_mm_F: np.ndarray
    shaded: ShadedMouth | None = None


def _figure(width_px: int, height_px: int) -> Figure:
    return Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, layout="constrained")


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DPI)
    return path


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def near_homophone_map(
    path: Path, panels: Mapping[str, np.ndarray], words: Sequence[str], pairs: Sequence[tuple[str, str]], seed: int = 0
) -> Path:
    """t-SNE of word vectors, one panel each for the features as they are and with F_s.

    Args:
        panels: title -> vectors (N, D); each panel has its own projection, so only neighbourhoods can be compared.
        words: the word spoken in each of the N examples.
        pairs: near-homophones; a pair has one colour, its first word is a disc and its second a cross.
    """
    from sklearn.manifold import TSNE

    figure = _figure(600 * len(panels), 620)
    for axes, (title, vectors_ND) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        scaled_ND = vectors_ND / np.maximum(vectors_ND.std(), 1e-12)
        perplexity = min(20.0, (len(words) - 1) / 3)
        places_N2 = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(scaled_ND)
        for i, pair in enumerate(pairs):
            for word, marker in zip(pair, ("o", "x"), strict=True):
                at_N2 = places_N2[[word == other for other in words]]
                colour = PALETTE[i % len(PALETTE)]
                axes.scatter(at_N2[:, 0], at_N2[:, 1], s=26, c=colour, marker=marker, linewidths=1.4, label=word)
        axes.set(title=title, xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", xticks=[], yticks=[])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(pairs), frameon=False)
    return _save(figure, path)


def aperture_against_audio(
    path: Path, title: str, samples_S: np.ndarray, curves: Sequence[Opening], phones: Sequence[Timing] | None
) -> Path:
    """Sound above, inner-lip openings below, on one time axis; p, b and m, where lips must meet, are shaded.

    Args:
        curves: the true motion (black, dashed) if there is any, named "true", and each model's.
        phones: phone times, or None if unknown.
    """
    figure = _figure(1320, 620)
    sound, lips = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    _draw_sound(sound, samples_S)
    colours = iter(PALETTE)
    for curve in curves:
        times_s = np.arange(len(curve.opening_mm_T)) / curve.fps
        true = curve.name == "true"
        style = {"color": BLACK, "linestyle": "--"} if true else {"color": next(colours)}
        lips.plot(times_s, curve.opening_mm_T, linewidth=1.6, label=curve.name, **style)
    for number, (phone, start, end) in enumerate(phones or []):
        if phone == "SIL":
            continue
        if phone in BILABIALS:
            for axes in (sound, lips):
                axes.axvspan(start, end, color=ORANGE, alpha=0.35, linewidth=0)
        height = 1.015 if number % 2 else 1.065
        lips.text((start + end) / 2, height, phone, transform=lips.get_xaxis_transform(), ha="center", fontsize=6.5)
    lips.set(xlabel="time (s)", ylabel="inner-lip opening\nabove rest (mm)", xlim=(0, len(samples_S) / SAMPLE_RATE_HZ))
    lips.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    shaded = "; shaded: p, b, m" if phones else ""
    sound.set_title(f"{title}{shaded}", loc="left", fontsize=10)
    lips.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    for axes in (sound, lips):
        _bare(axes)
    return _save(figure, path)


def _draw_sound(axes: Axes, samples_S: np.ndarray) -> None:
    hop = int(ENVELOPE_S * SAMPLE_RATE_HZ)
    pieces_EH = samples_S[: len(samples_S) // hop * hop].reshape(-1, hop)
    scale = max(1e-9, float(np.abs(samples_S).max()))
    times_s = (np.arange(len(pieces_EH)) + 0.5) * ENVELOPE_S
    axes.fill_between(
        times_s, pieces_EH.min(1) / scale, pieces_EH.max(1) / scale, color="#BBBBBB", linewidth=0, label="waveform"
    )
    rms_E = np.sqrt((pieces_EH**2).mean(1)) / scale
    axes.plot(times_s, rms_E, color=GREEN, linewidth=1.3, label="RMS, 10 ms")
    axes.set(ylabel="sound (of peak)", ylim=(-1.05, 1.05), yticks=(-1, 0, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def mouths_in_slow_motion(
    path: Path, title: str, mouths: Sequence[Mouth], phones: Sequence[str], times_s: np.ndarray, sounding: np.ndarray
) -> Path:
    """One row per face and one column per moment, all on one scale; phone and time are below each column.

    Args:
        phones, times_s: what sounds in each of the F columns, and when.
        sounding: flags (F,): the columns of the sound that the picture is about.
    """
    n_columns = len(times_s)
    figure = _figure(MOUTH_PX * n_columns + 150, (MOUTH_PX + 20) * len(mouths) + 72)
    panels = figure.subplots(len(mouths), n_columns, squeeze=False)
    for mouth, row in zip(mouths, panels, strict=True):
        for column, axes in enumerate(row):
            if mouth.shaded is None:
                _draw_contours(axes, mouth, column)
            else:
                _draw_shaded(axes, mouth.shaded, mouth.inner_mm_FP2[column], column)
            axes.set(xlim=MOUTH_VIEW_MM[0], ylim=MOUTH_VIEW_MM[1], aspect="equal", xticks=[], yticks=[])
            axes.set_facecolor(PAPER)
            lips = f"{mouth.opening_mm_F[column]:+.1f} / {mouth.width_mm_F[column]:+.1f}".replace("-", "−")
            axes.set_title(lips if np.isfinite(mouth.opening_mm_F[column]) else "no face found", fontsize=8, pad=3)
            axes.spines[:].set(color=VERMILION if sounding[column] else "#BBBBBB", linewidth=1.0 + sounding[column])
        row[0].set_ylabel(mouth.name, fontsize=10)
    for column, axes in enumerate(panels[-1]):
        colour, weight = (VERMILION, "bold") if sounding[column] else (BLACK, "normal")
        axes.set_xlabel(f"{phones[column]}\n{times_s[column]:.3f} s", color=colour, fontweight=weight, fontsize=9)
    units = "above each mouth: opening / width, mm above that face's rest"
    figure.suptitle(f"{title}; {units}", x=0.01, ha="left", fontsize=10)
    return _save(figure, path)


def _draw_contours(axes: Axes, mouth: Mouth, column: int) -> None:
    axes.fill(*mouth.outer_mm_FP2[column].T, facecolor=LIP, edgecolor=BLACK, linewidth=0.8)
    axes.fill(*mouth.inner_mm_FP2[column].T, facecolor=MOUTH, edgecolor=BLACK, linewidth=0.8)
    axes.plot(*mouth.chin_mm_FP2[column].T, color=BLACK, linewidth=1.2)


def _draw_shaded(axes: Axes, shaded: ShadedMouth, inner_mm_P2: np.ndarray, column: int) -> None:
    """The mesh in daylight, with the mouth's dark between the lips."""
    vertices_V3, triangles_G3 = shaded.vertices_mm_FV3[column], shaded.triangles_G3
    light_V = np.zeros(len(vertices_V3))
    np.add.at(light_V, triangles_G3, daylight(vertices_V3[triangles_G3])[:, None])
    light_V /= np.maximum(np.bincount(triangles_G3.ravel(), minlength=len(light_V)), 1)
    skin_3, lip_3, mouth_3 = (np.array(to_rgb(colour)) for colour in (SKIN, LIP, MOUTH))
    rgb_V3 = (skin_3 + shaded.lip_V[:, None] * (lip_3 - skin_3)) * light_V[:, None]
    rgb_V3 += shaded.inside_V[:, None] * (mouth_3 - rgb_V3)
    axes.fill(*inner_mm_P2.T, facecolor=MOUTH, linewidth=0, zorder=-1)  # behind the image
    image_YX4 = nearest_surface(vertices_V3, triangles_G3, rgb_V3)
    axes.imshow(image_YX4, extent=(*MOUTH_VIEW_MM[0], *MOUTH_VIEW_MM[1]), origin="lower", interpolation="antialiased")


def nearest_surface(vertices_mm_V3: np.ndarray, triangles_G3: np.ndarray, rgb_V3: np.ndarray) -> np.ndarray:
    """Image (Y, X, 4) of `MOUTH_VIEW_MM`, transparent where there is nothing. It uses a depth buffer: sorted triangles
    leave notches where pressed lips intersect."""
    size = 2 * MOUTH_PX  # shown at half this size, which smooths the edges
    low_2, high_2 = np.transpose(MOUTH_VIEW_MM)
    at_V2 = (vertices_mm_V3[:, :2] - low_2) / (high_2 - low_2) * size - 0.5
    image_YX4, depth_YX = np.zeros((size, size, 4)), np.full((size, size), -np.inf)
    for triangle_3 in triangles_G3:
        (ax, ay), (bx, by), (cx, cy) = corners_32 = at_V2[triangle_3]
        twice_area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        (x0, y0), (x1, y1) = np.ceil(corners_32.min(0)).clip(0), np.floor(corners_32.max(0)).clip(max=size - 1)
        if twice_area <= 0 or x0 > x1 or y0 > y1:  # seen from behind, between pixels, or out of view
            continue
        y_Y1, x_1X = np.ogrid[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
        b_YX = ((x_1X - ax) * (cy - ay) - (y_Y1 - ay) * (cx - ax)) / twice_area
        c_YX = ((bx - ax) * (y_Y1 - ay) - (by - ay) * (x_1X - ax)) / twice_area
        shares_YX3 = np.stack([1 - b_YX - c_YX, b_YX, c_YX], -1)
        there = np.s_[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
        z_YX = shares_YX3 @ vertices_mm_V3[triangle_3, 2]
        nearer_YX = (shares_YX3 >= -1e-9).all(-1) & (z_YX > depth_YX[there])
        depth_YX[there][nearer_YX] = z_YX[nearer_YX]
        image_YX4[there][nearer_YX] = np.append(
            shares_YX3[nearer_YX] @ rgb_V3[triangle_3], np.ones((nearer_YX.sum(), 1)), 1
        )
    return image_YX4


def error_maps(
    path: Path,
    maps: Mapping[str, np.ndarray],
    rest_V3: np.ndarray,
    faces_F3: np.ndarray | None,
    unit: str,
) -> Path:
    """Mean error of every vertex, seen from the front; all maps share one scale.

    Args:
        maps: title -> error (V,) in `unit`.
        rest_V3: the rest face, x to the character's left, y up, z forward.
        faces_F3: triangles; without them the vertices are drawn as dots.
    """
    figure = _figure(560 * len(maps) + 140, 700)
    all_axes = figure.subplots(1, len(maps), squeeze=False)[0]
    largest = max(float(np.quantile(error_V, 0.999)) for error_V in maps.values())
    colours = ScalarMappable(Normalize(0, largest or 1.0), "YlOrBr")
    for axes, (title, error_V) in zip(all_axes, maps.items(), strict=True):
        if faces_F3 is None:
            order = np.argsort(rest_V3[:, 2])
            axes.scatter(*rest_V3[order, :2].T, c=colours.to_rgba(error_V[order]), s=4, linewidths=0)
        else:
            order = np.argsort(rest_V3[faces_F3, 2].mean(1))
            corners_F33 = rest_V3[faces_F3[order]]
            rgba_F4 = np.asarray(colours.to_rgba(error_V[faces_F3[order]].mean(1)))
            rgba_F4[:, :3] *= daylight(corners_F33)[:, None]
            axes.add_collection(
                PolyCollection(list(corners_F33[:, :, :2]), facecolors=rgba_F4, edgecolors="face", lw=0.3)
            )
            axes.autoscale_view()
        axes.set(title=title, aspect="equal")
        axes.set_axis_off()
    figure.colorbar(colours, ax=list(all_axes), label=f"mean error ({unit})", shrink=0.7, extend="max")
    return _save(figure, path)


def daylight(corners_F33: np.ndarray) -> np.ndarray:
    """Brightness (F,) of triangles lit from above the viewer, which makes eyes and nose visible."""
    normals_F3 = np.cross(corners_F33[:, 1] - corners_F33[:, 0], corners_F33[:, 2] - corners_F33[:, 0])
    normals_F3 /= np.maximum(np.linalg.norm(normals_F3, axis=1, keepdims=True), 1e-20)
    return 0.62 + 0.38 * (normals_F3 @ (0.0, 0.5, 0.866)).clip(0)


def training_curves(path: Path, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Path:
    """Every value of the runs' metrics.jsonl over the steps: one panel per value, one line per run."""
    keys = sorted({key for rows in runs.values() for row in rows for key in row if key != "step"})
    columns = min(3, max(1, len(keys)))
    lines = -(-len(keys) // columns) or 1
    figure = _figure(440 * columns, 330 * lines + 60)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, key in zip(panels, keys, strict=False):
        values = []
        for i, (name, rows) in enumerate(runs.items()):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), color=PALETTE[i % len(PALETTE)], linewidth=1.4, label=name)
                values += [value for _, value in points]
        positive = bool(values) and min(values) > 0
        if positive and max(values) > 30 * min(values):
            axes.set_yscale("log")
        axes.set(title=key, xlabel="step", ylabel=_METRIC_UNITS.get(key, key))
        axes.xaxis.set_major_formatter(EngFormatter())
        _bare(axes)
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles) or 1, frameon=False)
    return _save(figure, path)


_METRIC_UNITS = {"audio_s_per_s": "seconds of sound per second", "loss": "loss (no unit)", "lr": "learning rate"}


def errors_of_hosts(path: Path, errors: Mapping[str, Mapping[str, float]]) -> Path:
    """One line for each host, one mark for each figure; `errors` is host -> mark -> error."""
    looks = {
        "without Wav2Sem": ("o", BLUE, BLUE),
        "with Wav2Sem": ("D", VERMILION, VERMILION),
        "without Wav2Sem, published": ("o", BLUE, "none"),
        "with Wav2Sem, published": ("D", VERMILION, "none"),
        "constant F_s": ("|", BLACK, BLACK),
        "another clip's F_s": ("x", BLACK, BLACK),
    }
    figure = _figure(900, 150 + 45 * len(errors))
    axes = figure.subplots()
    for mark, (marker, edge, face) in looks.items():
        points = [(some[mark], at) for at, some in enumerate(errors.values()) if mark in some]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker, color=edge, markerfacecolor=face, markersize=9, label=mark)
    axes.set_yticks(range(len(errors)), errors)
    axes.set_ylim(len(errors) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("LVE")
    axes.grid(axis="x", which="both", color="0.9")
    _bare(axes)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _save(figure, path)
