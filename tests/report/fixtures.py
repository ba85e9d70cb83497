"""Results as the commands would make them, simulated: a phantom study, a cohort, a disaster."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cordqa import figures
from cordqa.records import (
    Entities,
    Figure,
    Measurement,
    Notice,
    Outcome,
    Provenance,
    Result,
    Severity,
    State,
    Statistic,
    Status,
    Verdict,
)

SCANNERS = ("Alpha 3T", "Beta 3T", "Gamma 3T")
VENDORS = ("Vendor A", "Vendor B", "Vendor C")
TOLERANCE = 5.0
CERTIFICATE = "Certificate of the phantom, batch 2, 3 T, interpolated to 20.4 °C"
RULES = "cordqa default tolerances 1 (illustrative), doi:10.1002/mrm.00000"
INVERSION_S = np.array([0.035, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
ECHOES_S = np.arange(1, 17) * 0.012


def layout(plate: int) -> np.ndarray:
    """Centres of the 14 spheres in mm (column, row): ten on a circle, four inside."""
    angles = np.deg2rad(90 - 36 * np.arange(10))
    ring = np.stack([50 * np.cos(angles), -50 * np.sin(angles)], axis=1)
    inner = np.array([[-20, -20], [20, -20], [20, 20], [-20, 20]], dtype=float)
    turn = np.deg2rad(9.0 if plate == 5 else -14.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.concatenate([ring, inner]) @ rotation.T


def picture(plate: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:256, :256]
    centres = layout(plate) * 0.95 + 127.5
    image = 160.0 * (np.hypot(rows - 127.5, columns - 127.5) < 96)
    for index, (x, y) in enumerate(centres):
        image[np.hypot(rows - y, columns - x) < 8] = 60 + 60 * index
    return figures.to_grey(image + rng.normal(0, 12, image.shape)), centres


def times_ms(quantity: str) -> np.ndarray:
    longest = 1960.0 if quantity == "T1" else 600.0
    return longest / np.sqrt(2) ** np.arange(14)


def status_of(error: float, index: int) -> Status:
    if index == 13:
        return Status.NOT_EVALUATED
    if abs(error) > TOLERANCE:
        return Status.FAIL
    return Status.WARN if abs(error) > 0.7 * TOLERANCE else Status.PASS


def sphere(plate: int, index: int) -> str:
    return f"plate {plate}, sphere {index + 1}"


class Bench:
    """One scanner that measured one plate."""

    def __init__(self, number: int, plate: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.plate, self.scanner = plate, SCANNERS[number]
        self.quantity = "T1" if plate == 5 else "T2"
        self.reference = times_ms(self.quantity)
        bias = (0.4, -1.2, 2.6)[number]
        self.error = bias + rng.normal(0, 1.3, 14)
        self.error[1] += (0, 7.5, 0)[number]
        self.value = self.reference * (1 + self.error / 100)
        self.value[13] = math.nan
        self.uncertainty = self.value * 0.008
        self.status = [status_of(self.error[i], i) for i in range(14)]
        self.entities = Entities(scanner=self.scanner, vendor=VENDORS[number], field_strength_T=3.0)
        self.rng = rng

    def measurements(self) -> list[Measurement]:
        return [
            Measurement(
                quantity=self.quantity,
                value=float(self.value[i]),
                unit="ms",
                region=sphere(self.plate, i),
                standard_uncertainty=float(self.uncertainty[i]),
                low=float(self.value[i] - 2 * self.uncertainty[i]),
                high=float(self.value[i] + 2 * self.uncertainty[i]),
                n_voxels=52,
                reference=float(self.reference[i]),
                reference_uncertainty=float(self.reference[i] * 0.006),
                reference_source=CERTIFICATE,
                entities=self.entities,
                flags=("outside-protocol-range",)
                if i == 13
                else ("clipped-samples-dropped",)
                if i == 0
                else (),
            )
            for i in range(14)
        ]

    def verdicts(self) -> list[Verdict]:
        return [
            Verdict(
                status=self.status[i],
                subject=f"{sphere(self.plate, i)}, {self.quantity}, {self.scanner}",
                rule=f"{self.quantity} within tolerance of the reference",
                observed=float(self.error[i]) if i < 13 else math.nan,
                low=-TOLERANCE,
                high=TOLERANCE,
                unit="%",
                source=RULES,
                reason="the shortest inversion time is too long for this sphere" if i == 13 else "",
                quantity=self.quantity,
                region=sphere(self.plate, i),
                scope="sphere",
                entities=self.entities,
            )
            for i in range(14)
        ]

    def plate_figure(self) -> Figure:
        image, centres = picture(self.plate, self.rng)
        circles = [
            figures.Circle(
                x=float(centres[i, 0]),
                y=float(centres[i, 1]),
                radius=6,
                label=str(i + 1),
                status=self.status[i],
                name=sphere(self.plate, i),
                value=float(self.value[i]),
                uncertainty=2 * float(self.uncertainty[i]),
                unit="ms",
            )
            for i in range(14)
        ]
        title = f"{self.scanner}, plate {self.plate}"
        return figures.plate(f"plate-{self.plate}-{self.scanner}", title, image=image, circles=circles)

    def series(self) -> figures.Series:
        return figures.Series(
            label=self.scanner,
            x=self.reference,
            y=self.value,
            low=self.value - 2 * self.uncertainty,
            high=self.value + 2 * self.uncertainty,
            names=[sphere(self.plate, i) for i in range(14)],
        )

    def rates(self) -> figures.Series:
        concentration = 30 / self.reference * 1000 / 100
        slope, intercept = np.polyfit(concentration[:13], 1000 / self.value[:13], 1)
        return figures.Series(
            label=self.scanner,
            x=concentration,
            y=1000 / self.value,
            names=[sphere(self.plate, i) for i in range(14)],
            slope=float(slope),
            intercept=float(intercept),
        )

    def curves(self) -> Figure:
        times = INVERSION_S if self.quantity == "T1" else ECHOES_S
        dense = np.linspace(times[0], times[-1], 80)
        panels = []
        for i in range(14):
            constant = self.reference[i] / 1000
            signal = self.signal(times, constant) + self.rng.normal(0, 8, times.size)
            used = np.ones(times.size, dtype=bool)
            if i == 0:
                used[-2:] = False
            known = i < 13
            panels.append(
                figures.Curve(
                    label=f"Sphere {i + 1}",
                    x=times * 1000,
                    y=signal,
                    used=used,
                    fit_x=dense * 1000 if known else (),
                    fit_y=self.signal(dense, constant) if known else (),
                    value=float(self.value[i]),
                    uncertainty=2 * float(self.uncertainty[i]),
                    unit="ms",
                    status=self.status[i],
                    name=sphere(self.plate, i),
                    note="" if known else "outside the protocol's range",
                )
            )
        x_label = "Inversion time (ms)" if self.quantity == "T1" else "Echo time (ms)"
        title = f"{self.scanner}, plate {self.plate}: {self.quantity}"
        return figures.curves(f"curves-{self.plate}-{self.scanner}", title, curves=panels, x_label=x_label)

    def signal(self, times: np.ndarray, constant: float) -> np.ndarray:
        if self.quantity == "T1":
            return 1000 * (1 - 2 * np.exp(-times / constant))
        return 1000 * np.exp(-times / constant)


def phantom_statistics() -> list[Statistic]:
    rows: list[Statistic] = []
    for quantity in ("T1", "T2"):
        common = {"quantity": quantity, "n": {"spheres": 13, "scanners": 3}}
        rows += [
            Statistic(
                name="slope", value=1.0062, low=0.9938, high=1.0186, estimator="OLS on logarithms", **common
            ),
            Statistic(name="CCC", value=0.99982, low=0.99961, high=0.99992, estimator="Lin 2000", **common),
            Statistic(name="R2", value=0.99991, estimator="OLS", note="R2 alone proves nothing", **common),
            Statistic(
                name="within-scanner CV",
                value=0.84,
                low=0.69,
                high=1.08,
                unit="%",
                estimator="root mean square over spheres",
                interval_method="chi-squared",
                **common,
            ),
            Statistic(
                name="between-scanner CV",
                value=2.31,
                low=1.71,
                high=4.9,
                unit="%",
                estimator="variance components, REML",
                interval_method="MLS",
                **common,
            ),
            Statistic(name="ICC(A,1)", value=math.nan, flags=("fewer-than-five-subjects",), **common),
        ]
    return rows


def phantom_result(repeats: int = 1) -> Result:
    """Three scanners, plates 4 and 5, 14 spheres each; every status occurs."""
    benches = [Bench(n, plate, 10 * n + plate) for plate in (5, 4) for n in range(3)]
    t1, t2 = benches[:3], benches[3:]
    drawn = [bench.plate_figure() for bench in benches]
    for quantity, group in (("T1", t1), ("T2", t2)):
        drawn.append(
            figures.identity(
                f"identity-{quantity}",
                f"{quantity} of three scanners",
                series=[bench.series() for bench in group],
                quantity=quantity,
                unit="ms",
                tolerance_percent=(-TOLERANCE, TOLERANCE),
            )
        )
    drawn.append(
        figures.rate_linearity(
            "rate-T1", "R1 against concentration", series=[bench.rates() for bench in t1], quantity="T1"
        )
    )
    drawn += [bench.curves() for bench in benches]
    measured = [row for bench in benches for row in bench.measurements()]
    if repeats > 1:
        measured = [
            replace(row, entities=replace(row.entities, run=str(run + 1)))
            for run in range(repeats)
            for row in measured
        ]
    verdicts = [verdict for bench in benches for verdict in bench.verdicts()]
    verdicts += [
        Verdict(
            status=Status.FAIL,
            subject=f"plate {plate}",
            rule="all evaluated spheres of the plate within tolerance",
            reason="one sphere lies outside",
            scope="plate",
        )
        for plate in (5, 4)
    ]
    return Result(
        kind="phantom",
        title="System phantom 130-0042, three scanners at 3 T",
        status=Status.FAIL,
        summary="Five of 78 evaluated values lie outside their tolerance, three in T1 and two in T2.",
        measurements=tuple(measured),
        verdicts=tuple(verdicts),
        statistics=tuple(phantom_statistics()),
        notices=(
            Notice(
                severity=Severity.WARNING,
                message="no temperature was given; 20 °C is assumed. One degree changes T1 of sphere 1 by "
                "1.5 % and T1 of the other spheres by less than 1 %; give --temperature",
                where="all series",
                code="temperature.default",
            ),
            Notice(
                severity=Severity.INFO, message="12 files are not images and were left out", where="scans/"
            ),
            Notice(
                severity=Severity.WARNING,
                message="samples at the top of the stored range were dropped from the fit",
                where="Alpha 3T, plate 5, sphere 1",
            ),
            Notice(
                severity=Severity.WARNING,
                message="samples at the top of the stored range were dropped from the fit",
                where="Beta 3T, plate 5, sphere 1",
            ),
        ),
        outcomes=(
            *(
                Outcome(
                    what=f"{bench.scanner}, plate {bench.plate}, {bench.quantity}",
                    state=State.DONE,
                    sources=tuple(f"scans/{k}" for k in range(10)),
                )
                for bench in benches
            ),
            Outcome(
                what="localizer, series 1",
                state=State.SKIPPED,
                reason="no parameter varies between its images, so there is nothing to fit",
                code="series.no-model",
                sources=("scans/loc1", "scans/loc2"),
            ),
            Outcome(
                what="Gamma 3T, series 9",
                state=State.FAILED,
                reason="scans/IM_0091: the pixel data end early (found 81920 bytes, expected 131072); "
                "copy the file again",
                code="input.unreadable",
                sources=("scans/IM_0091",),
            ),
        ),
        figures=tuple(drawn),
        methods=(
            "T1 was fitted to the inversion recovery images by non-linear least squares with the polarity "
            "restored, with repetition time in the model. No fit was started from the reference value.",
            "Errors were judged with the expanded uncertainty of measurement and reference (k = 2).",
        ),
        references=(
            "Keenan KE, et al. An example reference to a phantom paper. 2021. doi:10.1002/mrm.28779.",
            "Lin LI. A concordance correlation coefficient. Biometrics 1989. https://doi.org/10.2307/2532051",
        ),
        provenance=Provenance(
            version="0.1.0",
            command="cordqa phantom scans out --serial 130-0042",
            created="2024-05-06T07:08:09+00:00",
            config={"fit": {"model": "ir", "noise_floor": True}, "temperature_C": None, "plates": [4, 5]},
            packages={"numpy": "2.1.0", "scipy": "1.14.0"},
            input_hashes={f"scans/IM_{k:04d}": f"{k * 7919:064x}" for k in range(40)},
            seed=7,
            engine="builtin",
        ),
    )


METRICS = {"FA": "1", "MD": "um2/s", "MTR": "%", "CSA": "mm2", "T1": "ms"}
CENTRES = {"FA": (0.68, 0.05), "MD": (1050, 90), "MTR": (42, 2.4), "CSA": (71, 8), "T1": (880, 45)}
LEVELS = ("C2", "C3", "C4", "C5", "C6", "C7", "T1")


def cohort_result(subjects: int = 203) -> Result:
    """A cohort of travelling and local subjects: 7 levels, 5 metrics, 3 vendors."""
    rng = np.random.default_rng(3)
    names = [f"sub-{index:03d}" for index in range(1, subjects + 1)]
    vendor_of = {name: VENDORS[index % 3] for index, name in enumerate(names)}
    values = {
        (metric, level): rng.normal(*CENTRES[metric], subjects) * (1 - 0.03 * LEVELS.index(level))
        for metric in METRICS
        for level in LEVELS
    }
    measured = [
        Measurement(
            quantity=metric,
            value=float(values[metric, level][index]),
            unit=METRICS[metric],
            region="white matter",
            level=level,
            standard_uncertainty=float(CENTRES[metric][1] * 0.1),
            n_voxels=120,
            coverage=0.93,
            entities=Entities(
                subject=name, vendor=vendor_of[name], scanner=f"{vendor_of[name]} 1", session="01"
            ),
        )
        for metric in METRICS
        for level in LEVELS
        for index, name in enumerate(names)
    ]
    drawn = [cohort_design(names, rng)]
    for metric, unit in METRICS.items():
        drawn += cohort_figures(metric, unit, names, vendor_of, values)
    drawn += summary_figures(rng)
    statistics = [
        Statistic(
            name=name,
            value=value,
            low=0.8 * value,
            high=1.3 * value,
            unit="%",
            quantity=metric,
            region=level,
            group=f"vendor={vendor}",
            estimator="root mean square of subject CVs",
            interval_method="chi-squared",
            n={"subjects": 68, "sessions": 2},
        )
        for metric in METRICS
        for level in LEVELS
        for vendor in VENDORS
        for name, value in (("wCV", 2.1), ("between-scanner CV", 4.4))
    ]
    statistics += [
        Statistic(
            name="wSD",
            value=0.0123,
            low=0.0101,
            high=0.0166,
            unit="ppm",
            quantity="susceptibility",
            n={"subjects": 20},
        )
    ]
    return Result(
        kind="reliability",
        title="Reliability of five cord metrics across three vendors",
        status=Status.WARN,
        summary="Within-scanner CV stays under 5 % for all metrics; T1 differs between vendors by more "
        "than its repeatability.",
        measurements=tuple(measured),
        statistics=tuple(statistics),
        verdicts=tuple(
            Verdict(
                status=Status.WARN if metric == "T1" else Status.PASS,
                subject=f"{metric}, all levels",
                rule="between-scanner CV within tolerance",
                observed=6.2 if metric == "T1" else 3.1,
                high=5.0,
                unit="%",
                source="study protocol",
                quantity=metric,
                scope="metric",
            )
            for metric in METRICS
        ),
        outcomes=tuple(
            Outcome(
                what=name,
                state=State.FAILED if index == 4 else State.DONE,
                reason="no cord in the field of view" if index == 4 else "",
            )
            for index, name in enumerate(names)
        ),
        figures=tuple(drawn),
        methods=("Variance components were estimated by REML.",),
    )


def cohort_design(names: list[str], rng: np.random.Generator) -> Figure:
    counts = rng.choice([0, 1, 2], size=(len(names), 6), p=[0.1, 0.2, 0.7])
    counts[7, 2] = -1
    scanners = [f"{vendor} {k}" for vendor in VENDORS for k in (1, 2)]
    return figures.design("design", "Who was scanned where", rows=names, columns=scanners, counts=counts)


def cohort_figures(metric, unit, names, vendor_of, values) -> list[Figure]:
    panels = {
        level: [
            figures.Group(
                label=vendor,
                values=values[metric, level][index::3],
                names=[name for name in names if vendor_of[name] == vendor],
                mean=float(np.mean(values[metric, level][index::3])),
                sd=float(np.std(values[metric, level][index::3], ddof=1)),
            )
            for index, vendor in enumerate(VENDORS)
        ]
        for level in LEVELS
    }
    first, second = values[metric, "C2"], values[metric, "C3"]
    difference = second - first
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    agreement = figures.Agreement(
        label=metric,
        means=(first + second) / 2,
        differences=difference,
        names=names,
        series=[vendor_of[name] for name in names],
        bias=(bias, bias - 0.14 * sd, bias + 0.14 * sd),
        lower=(bias - 1.96 * sd, bias - 2.2 * sd, bias - 1.72 * sd),
        upper=(bias + 1.96 * sd, bias + 1.72 * sd, bias + 2.2 * sd),
    )
    return [
        figures.strip(
            f"strip-{metric}", f"{metric} by level and vendor", panels=panels, value_label=metric, unit=unit
        ),
        figures.bland_altman(f"ba-{metric}", f"{metric}: C3 against C2", panels=[agreement], unit=unit),
    ]


def summary_figures(rng: np.random.Generator) -> list[Figure]:
    def estimates(scale: float) -> list[figures.Estimate]:
        return [
            figures.Estimate(label=level, series=vendor, value=v, low=0.75 * v, high=1.5 * v)
            for level in LEVELS
            for vendor, v in zip(VENDORS, rng.uniform(0.5, 1.0, 3) * scale, strict=True)
        ]

    def iccs() -> list[figures.Estimate]:
        found = rng.uniform(0.55, 0.97, len(LEVELS))
        return [
            figures.Estimate(label=level, value=v, low=v - 0.7 * (1 - v), high=v + 0.4 * (1 - v))
            for level, v in zip(LEVELS, found, strict=True)
        ]

    grid = rng.uniform(1, 8, (len(LEVELS), len(METRICS)))
    grid[2, 3] = math.nan
    months = [f"{2022 + k // 12}-{k % 12 + 1:02d}-15" for k in range(30)]
    followed = 880 + rng.normal(0, 6, 30) + np.where(np.arange(30) > 21, 22, 0)
    smooth = np.zeros(30)
    for k in range(30):
        smooth[k] = 0.2 * followed[k] + 0.8 * (smooth[k - 1] if k else 880)
    chart = figures.ControlPanel(
        label="Alpha 3T",
        when=months,
        values=followed,
        names=[f"scan {k + 1}" for k in range(30)],
        signals=["above the upper limit" if value > 898 else "" for value in followed],
        centre=880,
        low=862,
        high=898,
        warn_low=868,
        warn_high=892,
        ewma=smooth,
        ewma_low=np.full(30, 874.0),
        ewma_high=np.full(30, 886.0),
        events={"2023-11-01": "software upgrade E11 to XA30"},
        baseline=20,
    )
    rates = np.linspace(0, 1, 30)
    return [
        figures.heatmap(
            "wcv",
            "Within-scanner CV",
            rows=LEVELS,
            columns=list(METRICS),
            values=grid,
            unit="%",
            value_label="wCV",
        ),
        figures.bars(
            "cv",
            "Within-scanner CV by level and vendor",
            value_label="wCV",
            unit="%",
            limit=5.0,
            limit_label="limit",
            panels={metric: estimates(6) for metric in METRICS},
        ),
        figures.forest(
            "icc",
            "ICC(A,1)",
            value_label="ICC(A,1)",
            axis=(0, 1),
            marks={"good": 0.75, "excellent": 0.9},
            panels={metric: iccs() for metric in METRICS},
        ),
        figures.components(
            "components",
            "Where the variance comes from",
            rows={
                m: {"subject": 60.0, "scanner": v, "session": -2.0 if m == "FA" else 6.0, "residual": 14.0}
                for m, v in zip(METRICS, (5, 12, 20, 3, 55), strict=True)
            },
            notes={"FA": "negative session component"},
        ),
        figures.control_chart("drift", "T1 of sphere 5", panels=[chart], value_label="T1", unit="ms"),
        figures.roc(
            "roc",
            "Telling patients from controls",
            curves=[
                figures.RocCurve(
                    label="muFA",
                    false_positive=rates,
                    true_positive=rates**0.25,
                    auc=0.8,
                    low=0.71,
                    high=0.87,
                    operating=(0.207, 0.6745),
                ),
                figures.RocCurve(
                    label="FA", false_positive=rates, true_positive=rates**0.6, auc=0.625, low=0.52, high=0.73
                ),
            ],
        ),
        figures.linearity(
            "lin",
            "FA on two scanners",
            x_label="Scanner 1",
            y_label="Scanner 2",
            with_identity=True,
            series=[
                figures.Series(
                    label="subjects",
                    x=rates,
                    y=rates * 1.02 + 0.01 * np.sin(9 * rates),
                    slope=1.02,
                    intercept=0.0,
                )
            ],
        ),
    ]


def disaster_result() -> Result:
    """Nothing could be read: no measurement, no figure, only errors."""
    return Result(
        kind="phantom",
        title="scans",
        status=Status.NOT_EVALUATED,
        summary="Nothing was measured: none of the files could be read as an image.",
        notices=(
            Notice(
                severity=Severity.ERROR,
                message="no DICOM image was found; give the folder that holds the scans",
                where="scans/",
            ),
        ),
        outcomes=(
            Outcome(
                what="scans/notes.txt", state=State.SKIPPED, reason="is not an image", code="input.unreadable"
            ),
        ),
    )


HOSTILE = (
    "<script>alert('x')</script>\"'&</title></style>]]>--><img src=x onerror=alert(1)>"
    "\u202e\x1b[31m\x00\ud800"
)


def hostile_result() -> Result:
    """The same nasty text in every field that can hold text."""
    h = HOSTILE
    entities = Entities(subject=h, session=h, site=h, vendor=h, scanner=h, acquired=h)
    measurement = Measurement(
        quantity=h,
        value=1.0,
        unit=h,
        region=h,
        level=h,
        standard_uncertainty=0.1,
        reference=1.0,
        reference_source=h,
        entities=entities,
        flags=(h,),
        method=h,
        uncertainty_method=h,
        engine=h,
    )
    other = replace(
        measurement,
        value=math.nan,
        entities=replace(entities, subject="b", scanner="b", vendor="b", site="b"),
    )
    series = figures.Series(
        label=h, x=[1, 2], y=[1, 2], low=[0.5, 1], high=[2, 3], names=[h, h], slope=1, intercept=0
    )
    estimate = figures.Estimate(label=h, value=1, low=0.5, high=2, series=h, note=h)
    f = figures
    text = {"caption": h, "alt": h}
    drawn = (
        f.plate(
            h,
            h,
            image=np.zeros((8, 8), np.uint8),
            circles=[f.Circle(x=4, y=4, radius=2, label=h, name=h, text=h)],
            **text,
        ),
        f.identity(h, h, series=[series, series], quantity=h, unit=h, **text),
        f.curves(
            h,
            h,
            curves=[f.Curve(label=h, x=[1, 2], y=[1, 2], unit=h, value=1, uncertainty=0.1, note=h, name=h)],
            x_label=h,
            y_label=h,
            **text,
        ),
        f.linearity(h, h, series=[series, series], x_label=h, y_label=h, **text),
        f.strip(
            h,
            h,
            panels={h: [f.Group(label=h, values=[1, 2], names=[h, h], series=h)]},
            value_label=h,
            unit=h,
            **text,
        ),
        f.bars(h, h, panels={h: [estimate]}, value_label=h, unit=h, limit=1, limit_label=h, **text),
        f.forest(h, h, panels={h: [estimate]}, value_label=h, unit=h, marks={h: 1}, **text),
        f.components(h, h, rows={h: {h: 1.0, "b": 2.0}}, notes={h: h}, **text),
        f.bland_altman(
            h,
            h,
            panels=[
                f.Agreement(
                    label=h, means=[1, 2], differences=[1, 2], names=[h, h], series=[h, h], bias=(1, 0, 2)
                )
            ],
            x_label=h,
            y_label=h,
            unit=h,
            **text,
        ),
        f.heatmap(h, h, rows=[h], columns=[h], values=[[1.0]], unit=h, value_label=h, **text),
        f.design(h, h, rows=[h], columns=[h], counts=[[1]], **text),
        f.control_chart(
            h,
            h,
            panels=[
                f.ControlPanel(
                    label=h,
                    when=["2024-01-01", "2024-02-01"],
                    values=[1, 2],
                    names=[h, h],
                    signals=[h, ""],
                    events={"2024-01-09": h},
                )
            ],
            value_label=h,
            unit=h,
            **text,
        ),
        f.roc(
            h, h, curves=[f.RocCurve(label=h, false_positive=[0, 1], true_positive=[0, 1], auc=0.5)], **text
        ),
        Figure(name=h, kind=h, title=h, caption=h, alt=h, data={h: h}),
    )
    return Result(
        kind=h,
        title=h,
        status=Status.FAIL,
        summary=h,
        measurements=(measurement, other),
        verdicts=tuple(
            Verdict(
                status=status,
                subject=h,
                rule=h,
                observed=2,
                low=0,
                high=1,
                unit=h,
                source=h,
                reason=h,
                quantity=h,
                region=h,
                level=h,
                scope=h,
                entities=entities,
            )
            for status in Status
        ),
        statistics=(
            Statistic(
                name=h,
                value=1.0,
                low=0.5,
                high=2,
                unit=h,
                quantity=h,
                region=h,
                group=h,
                estimator=h,
                interval_method=h,
                n={h: 3},
                flags=(h,),
                note=h,
            ),
        ),
        notices=tuple(Notice(severity=severity, message=h, where=h, code=h) for severity in Severity),
        outcomes=tuple(Outcome(what=h, state=state, reason=h, code=h, sources=(h,)) for state in State),
        figures=drawn,
        methods=(h, h + " 10.1000/x" + h),
        references=(h, "doi:10.1000/" + h),
        provenance=Provenance(
            version=h,
            command=h,
            created=h,
            config={h: {h: [h, 1]}},
            packages={h: h},
            input_hashes={h: h},
            engine=h,
        ),
    )
