"""Which sections the report of some runs has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from delrec_hf.logging import progress
from delrec_hf.reporting import curves, figures, groups, provenance, study, tables, wording
from delrec_hf.reporting.drawing import Picture
from delrec_hf.reporting.reading import FinishedRun
from delrec_hf.reporting.sweep import differing, find_sweep
from delrec_hf.reporting.tables import Rows


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        level: Of its heading.
        kind: What it is, for the looks of the page.
        words: Paragraphs.
        points: A list below them.
        pictures: Figures; None: it could not be drawn.
        tables: Tables; None: there is nothing in it.
        code: Commands and files, as (what it is, text).
    """

    name: str
    title: str
    level: int = 2
    kind: str = ""
    words: Sequence[str] = ()
    points: Sequence[str] = ()
    pictures: Sequence[Picture | None] = ()
    tables: Sequence[Rows | None] = ()
    code: Sequence[tuple[str, str]] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show below the heading."""
        shown = (*self.pictures, *self.tables, *self.words, *self.points, *self.code)
        return not any(one is not None for one in shown)


def of_runs(runs: Sequence[FinishedRun]) -> list[Section]:
    """Return the sections of the page: of one run, or of several side by side and then of each."""
    if len(runs) == 1:
        return [*_of_run(runs[0], "", 2), *_not_measured(runs)]
    found = [*_side_by_side(runs), *_curve(runs)]
    for place, run in enumerate(progress(runs, desc="report"), start=1):
        found.append(Section(f"run-{place}", wording.printable(run.name, 60)))
        found += _of_run(run, f"run-{place}-", 3)
    return [*found, *_not_measured(runs)]


def _side_by_side(runs: Sequence[FinishedRun]) -> list[Section]:
    metrics = wording.main_metrics(runs)
    section = Section(
        "side-by-side",
        "Side by side",
        words=wording.comparable(runs),
        pictures=[
            figures.measured(runs, metric, f"side-by-side-{place}")
            for place, metric in enumerate(metrics, start=1)
        ],
        tables=[
            *(tables.beside(runs, metric) for metric in metrics),
            tables.differing_settings(differing(runs), runs),
        ],
    )
    return [section]


def _curve(runs: Sequence[FinishedRun]) -> list[Section]:
    """Return the curve over the setting that runs differ in, if there is one."""
    sweep = find_sweep(runs)
    if sweep is None:
        return []
    also = f" They differ in {', '.join(sweep.others)}, too: it is not the one cause."
    section = Section(
        "curve",
        f"By {sweep.words}",
        words=[f"The runs differ in {sweep.setting}.{also if sweep.others else ''}"],
        pictures=[
            curves.over_setting(runs, sweep, metric, f"curve-{place}")
            for place, metric in enumerate(wording.main_metrics(runs), start=1)
        ],
    )
    return [section]


def _of_run(run: FinishedRun, prefix: str, level: int) -> list[Section]:
    found = [
        Section("claims", "What may be claimed", points=wording.claims(run)),
        *_measured(run, prefix),
        *_taken_apart(run, prefix),
        _audit(run),
        Section(
            "protocol",
            "Protocol",
            words=wording.protocol_words(run),
            tables=[provenance.protocol(run)],
        ),
        Section(
            "environment",
            "Environment",
            tables=[provenance.environment(run), tables.times(run)],
        ),
        Section("commands", "Commands", code=provenance.commands(run)),
    ]
    return [
        replace(one, name=f"{prefix}{one.name}", kind=one.name, level=level)
        for one in found
        if not one.is_empty
    ]


def _measured(run: FinishedRun, prefix: str) -> list[Section]:
    metrics = list(enumerate(wording.main_metrics([run]), start=1))
    return [
        Section(
            "results",
            "Results",
            pictures=[figures.measured([run], one, f"{prefix}results-{n}") for n, one in metrics],
            tables=[tables.systems(run), tables.weights(run)],
        ),
        Section(
            "comparisons",
            "Comparisons",
            pictures=[
                figures.differences(run, one, f"{prefix}differences-{n}") for n, one in metrics
            ],
            tables=[tables.comparisons(run)],
        ),
        Section(
            "ablations",
            "Ablations",
            pictures=[figures.ablations(run, one, f"{prefix}ablations-{n}") for n, one in metrics],
        ),
        _study(run, prefix, metrics),
    ]


def _study(run: FinishedRun, prefix: str, metrics: Sequence[tuple[int, str]]) -> Section:
    """Return what changes when one thing in the recipe is changed."""
    swept = study.sweeps(run)
    return Section(
        "study",
        "One thing changed at a time",
        words=study.words(run),
        pictures=[
            *(study.differences(run, one, f"{prefix}study-{n}") for n, one in metrics),
            *(
                curves.over_setting(runs, sweep, metrics[0][1], f"{prefix}study-curve-{n}")
                for n, (sweep, runs) in enumerate(swept, start=1)
            ),
        ],
        tables=[study.table(run, one) for _, one in metrics],
    )


def _taken_apart(run: FinishedRun, prefix: str) -> list[Section]:
    return [
        Section(
            "training",
            "Training",
            pictures=curves.training(run, prefix),
            tables=[tables.agreement(run)],
        ),
        Section(
            "slices",
            "Groups of users",
            words=groups.words(run),
            pictures=groups.pictures(run, prefix),
            tables=groups.tables(run),
        ),
        Section("elsewhere", "Other candidates", tables=tables.elsewhere(run)),
    ]


def _audit(run: FinishedRun) -> Section:
    words = ["`delrec audit` found nothing."] if run.findings == [] else []
    return Section("audit", "Audit", words=words, tables=[provenance.audit(run)])


def _not_measured(runs: Sequence[FinishedRun]) -> list[Section]:
    """Return what lacks, each with the runs that it lacks in, unless that is all of them."""
    lacking: dict[str, list[str]] = {}
    for run in runs:
        for what in provenance.missing(run):
            lacking.setdefault(what, []).append(wording.printable(run.name, 60))
    points = [
        what if len(names) == len(runs) else f"{what}: {', '.join(names)}"
        for what, names in lacking.items()
    ]
    return [Section("not-measured", "Not measured", points=points)] if points else []
