"""What the tests and the benchmark of plate location share: a simulator, real series, quick fits.

The simulator draws spheres with partial volume at their edges.  It shares nothing with the search: no
gradients, no annuli, no grid.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cordqa.phantom.locate import PlateLayout

RING = [(50 * np.sin(np.radians(36 * k)), 50 * np.cos(np.radians(36 * k))) for k in range(10)]
INNER = [(-20.0, 20.0), (20.0, 20.0), (20.0, -20.0), (-20.0, -20.0)]
SYSTEM = PlateLayout("system phantom plate", tuple(range(1, 15)), np.array(RING + INNER), 15.0, 20.0)

#: A series with the span of the T1 array; not the certified values.
T1_MS = np.geomspace(2000, 22, 14)
T2_MS = np.geomspace(580, 6, 14)
INVERSION_MS = np.array([50.0, 100, 200, 400, 800, 1600])
ECHO_MS = np.arange(1, 9) * 12.0


def recovery(t1_ms, times_ms=INVERSION_MS):
    """Signed inversion recovery with long repetition time, shape (n_images, n_spheres)."""
    return 1 - 2 * np.exp(-np.asarray(times_ms)[:, None] / np.asarray(t1_ms)[None])


def decay(t2_ms, times_ms=ECHO_MS):
    return np.exp(-np.asarray(times_ms)[:, None] / np.asarray(t2_ms)[None])


@dataclass
class Scene:
    """One simulated slice; every default is harmless."""

    signals: np.ndarray = field(default_factory=lambda: recovery(T1_MS))  # (n_images, n_spheres)
    fill: np.ndarray | None = None  # (n_images,), liquid around the spheres
    shape: tuple[int, int] = (256, 256)
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    rotation_deg: float = 0.0
    mirrored: bool = False
    shift_mm: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    squeeze: float = 1.0  # compression along one direction, as a tilt does
    squeeze_deg: float = 0.0
    play_mm: float = 0.3  # positional scatter of the glued spheres
    section: float = 1.0  # radius of the circles over that of the spheres (off-centre slice)
    bias: float = 0.3  # share by which sensitivity varies over the image
    snr: float = 50.0
    magnitude: bool = True
    wall: bool = True
    missing: tuple[int, ...] = ()
    posts: bool = True
    seed: int = 0


def simulate(scene: Scene, layout: PlateLayout = SYSTEM):
    """Draw a slice; return images and true centres (n_spheres, 2) in pixels, in layout order."""
    rng = np.random.default_rng(scene.seed)
    rows, columns = np.indices(scene.shape)
    y, x = rows * scene.spacing_mm[0], columns * scene.spacing_mm[1]
    middle = (np.array(scene.shape) - 1) / 2 * np.array(scene.spacing_mm) + np.array(scene.shift_mm)
    plane = layout.positions_mm + rng.normal(0, scene.play_mm, layout.positions_mm.shape)
    centres = middle + plane @ _plane_map(scene).T
    fill = recovery([2500.0])[:, 0] if scene.fill is None else scene.fill
    fill = np.resize(fill, len(scene.signals))
    pixel = max(scene.spacing_mm)
    inside = _disc(y, x, middle, 98.0, pixel)
    images = inside * fill[:, None, None]
    if scene.posts:
        for angle in np.radians([0, 108, 252]):
            post = middle + _plane_map(scene) @ (60 * np.array([np.cos(angle), np.sin(angle)]))
            images = images * (1 - _disc(y, x, post, 7.0, pixel))
    for j, centre in enumerate(centres):
        if layout.sphere_ids[j] in scene.missing:
            continue
        inner = layout.inner_diameter_mm[j] / 2 * scene.section
        outer = layout.outer_diameter_mm[j] / 2 * (scene.section if scene.section < 1 else 1.0)
        shell = _disc(y, x, centre, outer if scene.wall else inner, pixel)
        liquid = _disc(y, x, centre, inner, pixel)
        images = images * (1 - shell) + liquid * scene.signals[:, j, None, None]
    images = images * _bias(scene, rng)
    top = np.abs(images).max()
    noise = rng.normal(0, top / scene.snr, (2, *images.shape))
    images = np.hypot(images + noise[0], noise[1]) if scene.magnitude else images + noise[0]
    return images * 1000, centres / np.array(scene.spacing_mm)


def _plane_map(scene):
    """Matrix from the layout (right, up) to (row, column) in millimetres."""
    a = np.radians(scene.rotation_deg)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    if scene.mirrored:
        turn = turn @ np.diag([-1.0, 1.0])
    b = np.radians(scene.squeeze_deg)
    axis = np.array([np.cos(b), np.sin(b)])
    squeeze = np.eye(2) - (1 - scene.squeeze) * np.outer(axis, axis)
    return np.array([[0.0, -1.0], [1.0, 0.0]]) @ squeeze @ turn * scene.scale


def _disc(y, x, centre, radius, pixel):
    return np.clip((radius - np.hypot(y - centre[0], x - centre[1])) / pixel + 0.5, 0, 1)


def _bias(scene, rng):
    r, c = np.meshgrid(*[np.linspace(-1, 1, n) for n in scene.shape], indexing="ij")
    a = rng.uniform(0, 2 * np.pi)
    return 1 + scene.bias * (0.6 * (np.cos(a) * r + np.sin(a) * c) + 0.4 * (r * r + c * c - 1))


def pose_error_mm(location, truth, spacing_mm):
    """Largest distance between true centres and each candidate's centres, in millimetres."""
    return np.array(
        [
            np.linalg.norm((c.centres - truth) * np.array(spacing_mm), axis=1).max()
            for c in location.candidates
        ]
    )


def disc_means(images, centres, spacing_mm, diameter_mm=9.0):
    """Mean signal of each disc in each image, shape (n_spheres, n_images)."""
    rows, columns = np.indices(images.shape[1:])
    means = []
    for row, column in centres:
        distance = np.hypot((rows - row) * spacing_mm[0], (columns - column) * spacing_mm[1])
        pixels = images[:, distance <= diameter_mm / 2]
        means.append(np.nanmean(pixels, axis=1) if pixels.shape[1] else np.full(len(images), np.nan))
    return np.array(means)


def quick_t1(signals, times_ms, repetition_ms=np.inf):
    """T1 of magnitude recoveries (n, n_images) by search over T1 and the number of flipped samples."""
    t1 = np.geomspace(8, 5000, 200)[:, None]
    repetition = np.broadcast_to(repetition_ms, times_ms.shape)
    design = np.stack([1 + np.exp(-repetition / t1), np.exp(-times_ms / t1)], axis=-1)
    q, _ = np.linalg.qr(design)
    n = len(times_ms)
    signs = np.where(np.arange(n) < np.arange(n + 1)[:, None], -1.0, 1.0)
    flipped = np.nan_to_num(signals)[:, None, :] * signs
    explained = (np.einsum("tik,sfi->tsfk", q, flipped) ** 2).sum(axis=-1).max(axis=2)
    return np.where(np.isfinite(signals).all(axis=1), t1[explained.argmax(axis=0), 0], np.nan)


def quick_t2(signal, times_ms):
    """T2 by a weighted straight line through the logarithm; NaN where nothing decays."""
    used = signal > 0.1 * signal.max()
    if used.sum() > 3:
        used[0] = False
    if used.sum() < 2:
        return np.nan
    slope = np.polyfit(times_ms[used], np.log(signal[used]), 1, w=signal[used])[0]
    return -1 / slope if slope < 0 else np.nan


@dataclass
class Series:
    """A real series: images scaled to be comparable, and what is known of it."""

    name: str
    quantity: str
    images: np.ndarray
    spacing_mm: tuple[float, float]
    times_ms: np.ndarray
    repetition_ms: np.ndarray
    field_T: float
    array: str

    def times(self, centres):
        """Natural logarithm of the relaxation time in ms at each centre."""
        means = disc_means(self.images, centres, self.spacing_mm)
        if self.quantity == "T1":
            values = quick_t1(means, self.times_ms, self.repetition_ms)
        else:
            values = [quick_t2(m, self.times_ms) for m in means]
        return np.log(np.array(values))


def real_series(data: Path):
    """Read the real system phantom scans, one :class:`Series` per folder."""
    folders = sorted(p for p in (data / "phantom").glob("T?/*/*") if p.is_dir())
    return [_read_series(folder) for folder in folders]


def _read_series(folder):
    import pydicom

    quantity = folder.parts[-3]
    files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    key = "InversionTime" if quantity == "T1" else "EchoTime"
    files.sort(key=lambda f: float(f[key].value))
    return Series(
        name="/".join(folder.parts[-3:]),
        quantity=quantity,
        images=np.array([_scaled(f) for f in files]),
        spacing_mm=tuple(float(v) for v in files[0].PixelSpacing),
        times_ms=np.array([float(f[key].value) for f in files]),
        repetition_ms=np.array([float(f.RepetitionTime) for f in files]),
        field_T=float(files[0].MagneticFieldStrength),
        # The folder name is the only record of which plate was scanned.
        array="NiCl2" if folder.name == "plate5" else "MnCl2",
    )


def _scaled(file):
    slope = float(file.get("RescaleSlope", 1))
    values = file.pixel_array * slope + float(file.get("RescaleIntercept", 0))
    private = file.get((0x2005, 0x100E))  # Philips scale slope, which differs between images
    if private is not None:
        raw = private.value
        values = values / (slope * (struct.unpack("<f", raw)[0] if isinstance(raw, bytes) else float(raw)))
    return values


#: Certified T1 and T2 in ms at 20 C, batch 1 (CaliberMRI; field labels of MnCl2 as in PhantomViewer).
_REFERENCE_MS = {
    "T1 NiCl2 1.5": "2033 1489 1012 730.8 514.1 367.9 260.1 184.6 132.7 92.7 65.4 46.32 32.45 22.859",
    "T2 NiCl2 1.5": "1669 1244 859.3 628.5 446.3 321.2 227.7 161.9 117.1 81.9 57.7 41.0 28.7 20.2",
    "T1 NiCl2 3.0": "1989 1454 984.1 706 496.7 351.5 247.13 175.3 125.9 89 62.7 44.53 30.84 21.719",
    "T2 NiCl2 3.0": "1465 1076 717.9 510.1 359.6 255.5 180.8 127.3 90.3 64.3 45.7 31.86 22.38 15.83",
    "T1 MnCl2 1.5": "2376 2183 1870 1539 1237 1030 752.2 550.2 413.4 292.9 194.9 160.2 106.4 83.33",
    "T2 MnCl2 1.5": "939.4 594.3 416.5 267 184.9 140.6 91.76 64.84 45.28 30.62 19.76 15.99 10.47 8.15",
    "T1 MnCl2 3.0": "2480 2173 1907 1604 1332 1044 801.7 608.6 458.4 336.5 244.2 176.6 126.9 90.9",
    "T2 MnCl2 3.0": "581.3 403.5 278.1 190.94 133.27 96.89 64.07 46.42 31.97 22.56 15.813 11.237 7.911 5.592",
}
REFERENCE_MS = {name: np.array(row.split(), float) for name, row in _REFERENCE_MS.items()}


def log_reference(series: Series):
    nearest = 1.5 if series.field_T < 2.2 else 3.0
    return np.log(REFERENCE_MS[f"{series.quantity} {series.array} {nearest}"])


def transform(images, spacing_mm, *, rotation_deg=0.0, mirrored=False, shift=(0.0, 0.0)):
    """Resample images: mirror columns, turn about the middle, shift by a share of the field of view.

    Returns the images and a function from old to new (row, column).
    """
    from scipy import ndimage

    shape = np.array(images.shape[1:])
    spacing = np.array(spacing_mm)
    middle = (shape - 1) / 2
    a = np.radians(rotation_deg)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    if mirrored:
        turn = turn @ np.diag([1.0, -1.0])
    forward = np.diag(1 / spacing) @ turn @ np.diag(spacing)
    offset = middle + np.array(shift) * shape
    backward = np.linalg.inv(forward)
    out = np.array(
        [
            ndimage.affine_transform(i, backward, middle - backward @ offset, order=1, mode="constant")
            for i in images
        ]
    )
    return out, lambda points: (np.asarray(points) - middle) @ forward.T + offset


FIDUCIALS_MM = np.array(
    [
        (x, y, z)
        for x in (-80, -40, 0, 40, 80)
        for y in (-80, -40, 0, 40, 80)
        for z in (-80, -40, 0, 40, 80)
        if x * x + y * y + z * z <= 9700
    ],
    float,
)
PLATE_DEPTHS_MM = (-56.5, -16.5, 23.5)


def turn(axis, degrees):
    """Rotation matrix about array axis 0, 1 or 2."""
    a = np.radians(degrees)
    matrix = np.eye(3)
    i, j = (k for k in range(3) if k != axis)
    matrix[[i, i, j, j], [i, j, i, j]] = np.cos(a), -np.sin(a), np.sin(a), np.cos(a)
    return matrix


def simulate_volume(
    *,
    shape=(100, 100, 100),
    spacing_mm=(2.0, 2.0, 2.0),
    orientation=None,
    depths_mm=PLATE_DEPTHS_MM,
    signals=None,
    snr=30.0,
    missing=(),
    seed=0,
    fiducials=True,
):
    """Draw the phantom in space; ``orientation`` (3 x 3) carries (depth, up, right) to array axes.

    Returns images and one array of true centres (n_spheres, 3) in voxels per plate.
    """
    rng = np.random.default_rng(seed)
    orientation = np.eye(3) if orientation is None else orientation
    spacing = np.array(spacing_mm)
    middle = (np.array(shape) - 1) / 2 * spacing
    signals = np.stack([np.geomspace(0.3, 1, 14), np.geomspace(0.5, 0.9, 14)]) if signals is None else signals
    images = np.zeros((len(signals), *shape))
    _ball(images, middle, 98.0, spacing, np.full(len(signals), 0.6))
    if fiducials:
        for x, y, z in FIDUCIALS_MM:
            _ball(images, middle + orientation @ (y, z, x), 5.0, spacing, np.full(len(signals), 0.85))
    truth = []
    for plate, depth in enumerate(depths_mm):
        points = np.column_stack([np.full(14, depth), SYSTEM.positions_mm[:, 1], SYSTEM.positions_mm[:, 0]])
        points = middle + (points + rng.normal(0, 0.3, points.shape)) @ orientation.T
        for j, point in enumerate(points):
            if (plate, j + 1) not in missing:
                _ball(images, point, 10.0, spacing, np.zeros(len(signals)))
                _ball(images, point, 7.5, spacing, signals[:, j])
        truth.append(points / spacing)
    images += rng.normal(0, images.max() / snr, images.shape)
    return np.abs(images) * 500, truth


def _ball(images, centre, radius, spacing, value):
    low = np.maximum(np.floor((centre - radius) / spacing - 1).astype(int), 0)
    high = np.minimum(np.ceil((centre + radius) / spacing + 2).astype(int), images.shape[1:])
    if (high <= low).any():
        return
    # Sub-voxels of about 1 mm: a thick slice mixes circles of different size.
    finer = np.ceil(spacing / 1.3).astype(int)
    axes = [
        (np.arange((b - a) * f) + 0.5) / f * s + (a - 0.5) * s
        for a, b, s, f in zip(low, high, spacing, finer, strict=True)
    ]
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(np.ix_(*axes), centre, strict=True)))
    share = np.clip((radius - distance) / (spacing / finer).max() + 0.5, 0, 1)
    blocks = [n for size, f in zip(high - low, finer, strict=True) for n in (size, f)]
    share = share.reshape(blocks).mean(axis=(1, 3, 5))
    box = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
    images[box] = images[box] * (1 - share) + share * value[:, None, None, None]
