"""The records of the protocol room: what is asked of a scan, what was found, and what was judged.

:class:`Protocol` and what it holds is a definition as the engine uses it; the file that it comes from
is checked by :mod:`cordqa.protocol.definition`.  :class:`ObservedSeries` is what a reader of sidecars
or DICOM headers hands over.  :class:`Finding` is one comparison of the two, and
:class:`ComplianceResult` all of them with their roll-ups.

Fields carry the names of BIDS (``RepetitionTime``) and the units of :mod:`cordqa.protocol.fields`:
seconds, degrees, tesla, hertz; lengths in mm and b-values in s/mm2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as made
from enum import StrEnum
from typing import Any

from cordqa.models.diffusion.gradients import GradientTable
from cordqa.records import Entities, Number, Severity, Status

__all__ = [
    "ComplianceResult",
    "Constraint",
    "ConstraintKind",
    "Finding",
    "FindingStatus",
    "GradientFacts",
    "GradientRule",
    "IfAbsent",
    "Limit",
    "ObservedSeries",
    "ObservedValue",
    "Origin",
    "ParameterRule",
    "Problem",
    "Protocol",
    "RollUp",
    "RuleSource",
    "SeriesMatch",
    "SeriesRule",
    "ShellRule",
    "TimeBudget",
    "TimeUse",
    "Within",
]


# What is asked ---------------------------------------------------------------------------------


class IfAbsent(StrEnum):
    """What it means that a field is not recorded."""

    NOT_CHECKABLE = "not checkable"
    MISSING = "missing"  # the protocol demands that it is recorded


class Within(StrEnum):
    """Among which series a constraint compares."""

    SESSION = "session"  # one participant, one session
    PARTICIPANT = "participant"  # all sessions of one participant
    SCANNER = "scanner"  # everything from one scanner


class ConstraintKind(StrEnum):
    """What a constraint demands of several series together."""

    EQUAL = "equal"
    SAME_SCALING = "same-scaling"
    SAME_SOFTWARE = "same-software"
    RATIO = "ratio"
    VALUES = "values"  # of one field over the images of a series: echo times, inversion times


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSource:
    """Where a number comes from; ``text`` is the citation, ``doi`` and ``commit`` may be empty."""

    id: str
    text: str
    doi: str = ""
    url: str = ""
    commit: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a value may be: an interval (both ends included), or one of some texts or numbers.

    Attributes
    ----------
    nominal : float
        The value asked for; NaN where only bounds are given.
    low, high : float
        Bounds in the unit of the field; infinite where there is none.
    one_of : tuple of str or float
        Allowed values; texts are compared without regard to case.  Empty for an interval.
    unit : str
    text : str
        The limit in words, for reports: ``"0.035 s (0.0343 to 0.0357)"``.
    """

    nominal: Number = math.nan
    low: Number = -math.inf
    high: Number = math.inf
    one_of: tuple[str | float, ...] = ()
    unit: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRule:
    """What one field of a series must be, for all scanners, one vendor, or one model of it.

    ``vendor`` is empty for all vendors, else a short name (``"Siemens"``, ``"Philips"``, ``"GE"``);
    ``model`` is empty for all models, else a pattern with ``*`` compared without regard to case.
    The most specific rule counts.  ``recommended`` marks a number that no publication gives: a
    recommendation of this project, for the reason in ``why``.
    """

    id: str  # "t2w.RepetitionTime.Siemens"
    field: str
    limit: Limit
    vendor: str = ""
    model: str = ""
    if_absent: IfAbsent = IfAbsent.NOT_CHECKABLE
    severity: Severity = Severity.ERROR
    why: str = ""
    source: str = ""  # id of a RuleSource
    recommended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellRule:
    """One shell: b in s/mm2, shape (1 linear, 0 spherical, -0.5 planar), fewest and most volumes."""

    b_s_mm2: float
    min_n: int = 1
    max_n: int | None = None
    b_delta: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientRule:
    """What the gradient table of a series must hold; ``None`` is not asked.

    ``b_tol`` is relative; b = 0 stands for every volume that counts as not weighted.
    """

    id: str
    shells: tuple[ShellRule, ...] = ()
    b_tol: float = 0.05
    extra_shells: bool = False  # whether shells that are not listed are allowed
    min_unique_directions: int | None = None  # over all linear shells
    max_condition_number: float | None = None
    max_energy_ratio: float | None = None  # of each linear shell; 1 is the best known spread
    severity: Severity = Severity.ERROR
    if_absent: IfAbsent = IfAbsent.NOT_CHECKABLE
    why: str = ""
    source: str = ""
    recommended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesMatch:
    """One way to recognise a series.

    Attributes
    ----------
    suffix : tuple of str
        BIDS suffixes, any of them; empty does not ask.
    entities : mapping of str to tuple of str
        BIDS entities (``{"mt": ("on",)}``) and their allowed values, patterns with ``*``; an empty
        text among them allows the entity to be absent.
    protocol_name : tuple of str
        Patterns with ``*`` for the DICOM protocol name or series description.
    """

    suffix: tuple[str, ...] = ()
    entities: Mapping[str, tuple[str, ...]] = made(default_factory=dict)
    protocol_name: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRule:
    """One series of a protocol; ``matches`` are alternatives, any of which recognises it."""

    id: str
    title: str
    matches: tuple[SeriesMatch, ...]
    required: bool = True
    duration_s: Mapping[str, float] = made(default_factory=dict)  # vendor (or "") to seconds, once each
    duration_source: str = ""
    parameters: tuple[ParameterRule, ...] = ()
    gradients: GradientRule | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What several series must share; see :class:`ConstraintKind`.

    ``low`` and ``high`` bound a ratio (first series over second).  For ``values``: ``min_count`` and
    ``max_count`` distinct values, the smallest within ``first``, the largest within ``last``, equal
    steps within ``rel_tol`` where ``even`` is set.
    """

    id: str
    kind: ConstraintKind
    series: tuple[str, ...]
    fields: tuple[str, ...]
    within: Within = Within.SESSION
    rel_tol: float = 0.0
    abs_tol: float = 0.0
    low: Number = -math.inf
    high: Number = math.inf
    min_count: int = 1
    max_count: int | None = None
    first: Limit | None = None
    last: Limit | None = None
    even: bool = False
    severity: Severity = Severity.ERROR
    why: str = ""
    source: str = ""
    recommended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBudget:
    """Longest total time of the series of one session, s."""

    max_s: float
    series: tuple[str, ...] = ()  # empty: all of the protocol
    severity: Severity = Severity.WARNING
    why: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A protocol: series, constraints, time budget, and where its numbers come from."""

    id: str
    title: str
    version: str
    rationale: str
    sources: tuple[RuleSource, ...]
    series: tuple[SeriesRule, ...]
    constraints: tuple[Constraint, ...] = ()
    field_strength_T: tuple[float, ...] = ()
    aliases: tuple[str, ...] = ()
    time_budget: TimeBudget | None = None
    units_guard: bool = True
    traps: tuple[str, ...] = ()  # ids of cordqa.protocol.traps
    path: str = ""

    def source(self, source_id: str) -> RuleSource | None:
        """Return a source by its id; ``None`` where there is none of that id."""
        return next((one for one in self.sources if one.id == source_id), None)

    def series_rule(self, series_id: str) -> SeriesRule | None:
        """Return a series by its id; ``None`` where there is none of that id."""
        return next((one for one in self.series if one.id == series_id), None)


# What was found --------------------------------------------------------------------------------


class Origin(StrEnum):
    """Where a value comes from."""

    SIDECAR = "sidecar"
    DICOM = "dicom"
    PRIVATE = "private"  # a vendor's own DICOM field
    IMAGE = "image"  # the NIfTI header: voxel sizes, matrix


class Problem(StrEnum):
    """Why a value that is recorded cannot be used."""

    NONE = ""
    NOT_NUMERIC = "not numeric"
    CONTRADICTION = "contradiction"  # two sources give different values
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class ObservedValue:
    """One recorded value.

    Attributes
    ----------
    raw : object
        As read (JSON or DICOM value).
    value : float, str, bool, tuple or None
        In the unit of the field, or text; ``None`` where it cannot be used, and then ``problem`` is set.
    unit : str
    origin : Origin
    problem : Problem
    note : str
        A clause for people: what is wrong, or which sources contradict each other.
    """

    raw: Any
    value: float | str | bool | tuple[float, ...] | tuple[str, ...] | None
    unit: str = ""
    origin: Origin = Origin.SIDECAR
    problem: Problem = Problem.NONE
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientFacts:
    """What files say about diffusion weighting.

    Attributes
    ----------
    table : GradientTable or None
        ``None`` where it cannot be used; then ``problem`` says why.
    shape_stated : bool
        Whether a file gives the shape of the encoding; else linear was assumed.
    sources : tuple of str
        Files, relative to the dataset.
    problem : str
    code : str
        Code of the error behind ``problem``, see :mod:`cordqa.models.diffusion.gradient_errors`.
    """

    table: GradientTable | None
    shape_stated: bool = False
    sources: tuple[str, ...] = ()
    problem: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObservedSeries:
    """One image of a BIDS dataset with its sidecars, or one DICOM series (one per echo).

    Attributes
    ----------
    file : str
        Path relative to the dataset; names the series in findings, unique within one check.
    entities : Entities
        Participant, session, site, vendor (short name), model, software, scanner.
    suffix : str
        BIDS suffix; empty for DICOM.
    labels : mapping of str to str
        All BIDS entities of the file name by their short keys (``sub``, ``acq``, ``mt``, ``echo``).
    protocol_name : str
        DICOM protocol name; or the ``ProtocolName`` of a sidecar.
    series_description : str
    parameters : mapping of str to ObservedValue
        By BIDS field name; a field that no source records is not a key.
    gradients : GradientFacts or None
        ``None`` where no file is there.
    problem : str
        Why the sidecar or header as a whole could not be read; empty where it could.
    """

    file: str
    entities: Entities
    suffix: str = ""
    labels: Mapping[str, str] = made(default_factory=dict)
    protocol_name: str = ""
    series_description: str = ""
    parameters: Mapping[str, ObservedValue] = made(default_factory=dict)
    gradients: GradientFacts | None = None
    problem: str = ""

    @property
    def vendor(self) -> str:
        """Short name of the vendor."""
        return self.entities.vendor

    @property
    def model(self) -> str:
        """Model name of the scanner."""
        return self.entities.model

    @property
    def software(self) -> str:
        """Software version of the scanner."""
        return self.entities.software

    @property
    def session_key(self) -> tuple[str, str, str]:
        """What makes a session: site, participant, session."""
        return self.entities.site, self.entities.subject, self.entities.session


# What was judged -------------------------------------------------------------------------------


class FindingStatus(StrEnum):
    """Outcome of one comparison."""

    PASS = "pass"
    OUT_OF_RANGE = "out of range"
    MISSING = "missing"
    NOT_NUMERIC = "not numeric"
    UNIT_SUSPECT = "unit suspect"
    CONSTRAINT = "constraint"
    NO_RULE = "no rule"
    NOT_CHECKABLE = "not checkable"

    @property
    def is_deviation(self) -> bool:
        """Whether something is not as the protocol demands."""
        return self not in (FindingStatus.PASS, FindingStatus.NO_RULE, FindingStatus.NOT_CHECKABLE)

    @property
    def is_checkable(self) -> bool:
        """Whether it could be judged at all: the denominator of compliance."""
        return self not in (FindingStatus.NO_RULE, FindingStatus.NOT_CHECKABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One comparison.

    Attributes
    ----------
    status : FindingStatus
    severity : Severity
        How much a deviation matters; ``INFO`` for a pass.
    file : str
        File of the series; several, joined by ``", "``, for a constraint; empty for a missing series.
    series : str
        Id of the series rule; empty where no rule matches the series.
    field : str
        BIDS field, or ``"gradients"``, ``"series"``, ``"duration"``; empty for a series without rule.
    observed : str
        As text with unit; empty where nothing is recorded.
    observed_value : float
        As number; NaN for texts.
    allowed : str
        Limit as text.
    low, high : float
    rule : str
        Id of the rule, constraint or trap.
    source : str
        Citation of the rule.
    sentence : str
        What is wrong (or right), for people.
    todo : str
        What to do about it; empty for a pass.
    """

    status: FindingStatus
    severity: Severity
    file: str
    series: str
    field: str
    observed: str = ""
    observed_value: Number = math.nan
    unit: str = ""
    allowed: str = ""
    low: Number = -math.inf
    high: Number = math.inf
    rule: str = ""
    source: str = ""
    sentence: str = ""
    todo: str = ""
    protocol: str = ""
    origin: str = ""
    entities: Entities = made(default_factory=Entities)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollUp:
    """Counts over one group of findings.

    ``by`` is ``overall``, ``series``, ``participant``, ``site``, ``vendor`` or ``field``.  Compliance is
    the passes over what could be judged; coverage is what could be judged over what was asked.  Both
    are NaN where the denominator is 0.  A series that the protocol does not mention is counted in
    ``n_unmatched`` and in neither.
    """

    by: str
    key: str
    counts: Mapping[str, int]  # by status
    n_warnings: int = 0  # deviations of severity warning or info
    n_errors: int = 0  # deviations of severity error
    n_unmatched: int = 0

    @property
    def n_pass(self) -> int:
        """Findings that passed."""
        return self.counts.get(FindingStatus.PASS, 0)

    @property
    def n_checkable(self) -> int:
        """Findings that could be judged."""
        return sum(n for status, n in self.counts.items() if FindingStatus(status).is_checkable)

    @property
    def n_asked(self) -> int:
        """What the protocol asked for, judged or not."""
        return sum(self.counts.values())

    @property
    def compliance(self) -> float:
        """Share of passes among what could be judged."""
        return self.n_pass / self.n_checkable if self.n_checkable else math.nan

    @property
    def coverage(self) -> float:
        """Share of what could be judged among what was asked."""
        return self.n_checkable / self.n_asked if self.n_asked else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeUse:
    """Scan time of one session; ``estimated`` where some of it is taken from the protocol's sheet.

    ``unknown`` names the series for which neither a measured nor a sheet time is known.
    """

    protocol: str
    entities: Entities
    total_s: Number
    measured_s: Number
    estimated: bool
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComplianceResult:
    """All findings of one check.

    Attributes
    ----------
    status : Status
        ``FAIL`` where a deviation of severity error was found, else ``WARN`` where any deviation was,
        else ``PASS`` where something could be judged, else ``NOT_EVALUATED``.
    """

    protocols: tuple[str, ...]
    status: Status
    findings: tuple[Finding, ...]
    roll_ups: tuple[RollUp, ...]
    time: tuple[TimeUse, ...] = ()
    n_series: int = 0

    @property
    def overall(self) -> RollUp:
        """The roll-up over everything."""
        return next(one for one in self.roll_ups if one.by == "overall")

    @property
    def deviations(self) -> tuple[Finding, ...]:
        """Findings that are not as the protocol demands."""
        return tuple(one for one in self.findings if one.status.is_deviation)

    def by(self, by: str) -> tuple[RollUp, ...]:
        """Return the roll-ups of one kind."""
        return tuple(one for one in self.roll_ups if one.by == by)

    def with_status(self, statuses: Iterable[FindingStatus]) -> tuple[Finding, ...]:
        """Return the findings of some statuses."""
        wanted = frozenset(statuses)
        return tuple(one for one in self.findings if one.status in wanted)
