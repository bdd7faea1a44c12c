"""What can happen to runs, and which alerts must fire when: derived from the rules, never from results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from .runs import JOB, Line, Process, Run
from .ways import Way, World

# What the rules say
GAP = 180
"""How long series may be missing (the windows of 3m)."""
STUCK_FOR, SLOW_FOR, LOST_FOR, NAME_FOR, LOOP_FOR, WAIT_FOR, PENDING_FOR, DOWN_FOR, ERROR_FOR = (
    0, 60, 60, 60, 0, 0, 30, 60, 120,
)  # fmt: skip
AGAIN_KEEP = 120
"""How long a trouble goes on that came back within 10 minutes."""
CLOCK_KEEP = 60
"""How long a run is heard after its last sample arrived, whatever its clock says."""
MOST = 130
"""From when on three quarters of a window of 3m failed, if everything fails: of 17 points in time between two scrapes, 13."""
REST = 50
"""From when on a quarter of a window of 3m is well again."""
NEARLY = 160
"""From when on three quarters of a window of 3m failed, if four fifths fail."""
NAME_GAP = 300
"""How long the series of StuckByName may be missing."""
BLIND = 300
"""Seconds after an outage during which silence proves nothing."""
CHILD_KNOWN = 30
"""Seconds until a child in another process is known."""
ROUND = 10
"""Seconds between two evaluations of the rules, as in the rules."""
LATE = 25
"""What an export, a scrape and an evaluation may add to each edge."""
OVER = LATE + ROUND
"""The same for an end: it is told how a run ended, in one evaluation more."""


@dataclass(frozen=True)
class Fires:
    """An alert fires from one moment to another. `id`, `name` and `instance` are its labels, if it has them."""

    alert: str
    begin: float
    end: float = math.inf
    id: str = ""
    name: str = "load"
    instance: str = "a"
    severity: str = ""


@dataclass(frozen=True)
class Scenario:
    """A world and its expected alerts."""

    name: str
    world: World
    alerts: tuple[Fires, ...] = ()

    def __str__(self) -> str:
        """Return its name, and how its series arrive."""
        return f"{self.name}-{'scraped' if self.world.way.scraped else 'pushed'}"

    @property
    def touches(self) -> frozenset[str]:
        """Return the names of the alerts that fire in it."""
        return frozenset(fires.alert for fires in self.alerts)


def stuck(
    begin: float, end: float = math.inf, id: str = "r1", instance: str = "a", name: str = "load"
) -> tuple[Fires, ...]:
    """Return the alert of a stuck run: idle reaches its limit at `begin`, and is below it again at `end`."""
    return (Fires("OperationStuck", begin + STUCK_FOR, end, id, name, instance),)


def stuck_after(ended: float, limit: float = 60) -> tuple[Fires, ...]:
    """Return the alert of a parent that stays idle beyond its limit; its child elsewhere is known until it `ended`.

    The last round before that saw the child.
    """
    return stuck(ended - ROUND + limit + CHILD_KNOWN)


def lost(
    heard: float, end: float = math.inf, id: str = "r1", instance: str = "a", name: str = "load"
) -> tuple[Fires, ...]:
    """Return the alert of a run whose last sample is of `heard`."""
    return (Fires("OperationLost", heard + GAP + LOST_FOR, end, id, name, instance),)


def down(begin: float, end: float) -> tuple[Fires, ...]:
    """Return the alert for the time in which no Collector works."""
    return (
        Fires("PipelineDown", begin + DOWN_FOR, end, name="", instance="", severity="critical"),
        Fires("PipelineDown", begin + DOWN_FOR, end, name="", instance="c0", severity="warning"),
    )


Make = Callable[[bool], Scenario]
_MAKERS: list[Make] = []


def scenario(make: Make) -> Make:
    """Add the scenario twice: with scraped and with pushed series."""
    _MAKERS.append(make)
    return make


def _world(
    scraped: bool, *runs: Run, way: Way | None = None, until: float = 1200, alone: tuple[Process, ...] = ()
) -> World:
    return World(runs, replace(way or Way(), scraped=scraped), until, alone)


@scenario
def progressing(scraped: bool) -> Scenario:
    """It makes progress, rests for less than its limit, waits within its limit, and is not slow yet."""
    run = Run(
        moves=((0, 100), (155, 700), (790, math.inf)),
        waits=((200, 500, 400), (700, 790, None)),
        slow_after=5000,
        start_within=300,
        made=0,
        start=20,
    )
    return Scenario("progressing", _world(scraped, run))


@scenario
def ends(scraped: bool) -> Scenario:
    """It makes progress until its clean end."""
    return Scenario("ends", _world(scraped, Run(end=400)))


@scenario
def exits(scraped: bool) -> Scenario:
    """It ends, and its process exits."""
    return Scenario("exits", _world(scraped, Run(process=Process(gone=401), end=400)))


@scenario
def stuck_recovers(scraped: bool) -> Scenario:
    """It is stuck, then makes progress again."""
    run = Run(moves=((0, 100), (500, math.inf)))
    return Scenario("stuck_recovers", _world(scraped, run), stuck(160, 500))


@scenario
def stuck_then_waits(scraped: bool) -> Scenario:
    """It is stuck, then declares a wait of six minutes and goes on: a waiting run is not stuck."""
    run = Run(moves=((0, 100), (860, math.inf)), waits=((500, 860, None),))
    return Scenario("stuck_then_waits", _world(scraped, run), stuck(160, 500))


@scenario
def stuck_ends(scraped: bool) -> Scenario:
    """It is stuck, then ends."""
    run = Run(moves=((0, 100),), end=500)
    return Scenario("stuck_ends", _world(scraped, run), stuck(160, 500))


@scenario
def stuck_shortly(scraped: bool) -> Scenario:
    """It is over its limit for half a minute: that is reported at once, as its process calls it stuck."""
    run = Run(moves=((0, 100), (189, math.inf)))
    return Scenario("stuck_shortly", _world(scraped, run), stuck(160, 189))


@scenario
def stuck_without_a_verdict(scraped: bool) -> Scenario:
    """The verdicts of its process do not arrive: it is over its limit for 20 s, and later for good."""
    run = Run(moves=((0, 100), (180, 500)))
    alerts = stuck(560 + 30)
    return Scenario("stuck_without_a_verdict", _world(scraped, run, way=Way(verdicts=False)), alerts)


@scenario
def stuck_dithers(scraped: bool) -> Scenario:
    """It makes progress every 110 s with a limit of 60 s: its first recovery is told, then it is one continuous alert."""
    moves = tuple((float(at), float(at)) for at in range(100, 900, 110))
    run = Run(moves=((0, 100), *moves, (900, math.inf)))
    return Scenario("stuck_dithers", _world(scraped, run), (*stuck(160, 210), *stuck(270, 870 + AGAIN_KEEP)))


@scenario
def stuck_dithers_often(scraped: bool) -> Scenario:
    """It makes progress every 40 s with a limit of 20 s, and ends at last: with that the alert ends at once."""
    moves = tuple((float(at), float(at)) for at in range(100, 700, 40))
    run = Run(moves=((0, 100), *moves), stall_after=20, end=730)
    return Scenario("stuck_dithers_often", _world(scraped, run), (*stuck(130, 140), *stuck(170, 730)))


@scenario
def stuck_again_later(scraped: bool) -> Scenario:
    """It is stuck twice, with a quarter of an hour between: these are two alerts, and each recovery is told at once."""
    run = Run(moves=((0, 100), (300, 1200), (1500, math.inf)))
    world = _world(scraped, run, until=1800)
    return Scenario("stuck_again_later", world, (*stuck(160, 300), *stuck(1260, 1500)))


@scenario
def stuck_killed(scraped: bool) -> Scenario:
    """It is stuck, then killed: that is no recovery, so it stays stuck, and is then lost as well."""
    run = Run(process=Process(gone=500), moves=((0, 100),))
    return Scenario("stuck_killed", _world(scraped, run), (*stuck(160), *lost(490)))


@scenario
def stuck_killed_resumed(scraped: bool) -> Scenario:
    """It is stuck, killed, and resumed elsewhere: both alerts end."""
    first = Run(process=Process(gone=300), moves=((0, 100),))
    second = Run(process=Process("b", born=900), start=900, moves=((900, math.inf),), attempt=2)
    world = _world(scraped, first, second)
    return Scenario("stuck_killed_resumed", world, (*stuck(160, 905), *lost(290, 905)))


@scenario
def stuck_stopped(scraped: bool) -> Scenario:
    """It is stuck, then stopped for ten minutes, and then makes progress: stuck until that is heard."""
    run = Run(process=Process(stopped=((300, 900),)), moves=((0, 100), (850, math.inf)))
    return Scenario("stuck_stopped", _world(scraped, run), (*stuck(160, 900), *lost(290, 900)))


@scenario
def stuck_proven(scraped: bool) -> Scenario:
    """It is stuck, then killed, which a runner proves; its last 0 is no recovery. It is resumed elsewhere."""
    first = Run(process=Process(gone=400, proven=401), moves=((0, 100),))
    second = Run(process=Process("b", born=800), start=800, moves=((800, math.inf),), attempt=2)
    world = _world(scraped, first, second)
    return Scenario("stuck_proven", world, (*stuck(160, 805), *gone(401, 805)))


TROUBLED = (
    Run("stuck", process=Process("a"), moves=((0, 100),)),
    Run("loops", process=Process("b"), loops=((200, math.inf),)),
    Run("slow", process=Process("c"), slow_after=300),
    Run("waits", process=Process("d"), moves=((0, 100),), waits=((100, math.inf, 200),)),
)
"""A run in each trouble, in processes of their own."""


def troubled(runs: tuple[Run, ...]) -> tuple[Fires, ...]:
    """Return the alerts of these runs: their troubles are never over."""
    a, b, c, d = (run.process.instance for run in runs)
    return (
        *stuck(160, id="stuck", instance=a),
        Fires("OperationLooping", 200 + LOOP_FOR, id="loops", instance=b),
        Fires("OperationSlow", 300 + SLOW_FOR, id="slow", instance=c),
        Fires("OperationOverdueWait", 300 + WAIT_FOR, id="waits", instance=d),
    )


@scenario
def troubled_killed(scraped: bool) -> Scenario:
    """Runs in each trouble are killed, and are lost a minute after their series are over: no trouble ends before that."""
    runs = tuple(replace(run, process=replace(run.process, gone=600)) for run in TROUBLED)
    alerts = [fires for run in runs for fires in lost(590, id=run.id, instance=run.process.instance)]
    return Scenario("troubled_killed", _world(scraped, *runs), (*troubled(runs), *alerts))


@scenario
def troubled_and_restarts(scraped: bool) -> Scenario:
    """The Collector restarts again and again while runs are in trouble: no trouble ends, and none is new."""
    way = Way(down=((400, 410), (500, 540), (700, 720), (730, 740), (1000, 1030)))
    return Scenario("troubled_and_restarts", _world(scraped, *TROUBLED, way=way), troubled(TROUBLED))


@scenario
def troubled_in_an_outage(scraped: bool) -> Scenario:
    """In an outage of six minutes nothing is heard, so no trouble ends."""
    world = _world(scraped, *TROUBLED, way=Way(down=((500, 860),)), until=1500)
    return Scenario("troubled_in_an_outage", world, (*troubled(TROUBLED), *down(500, 860)))


@scenario
def killed(scraped: bool) -> Scenario:
    """It is killed while it makes progress."""
    return Scenario("killed", _world(scraped, Run(process=Process(gone=400))), lost(390))


@scenario
def stopped(scraped: bool) -> Scenario:
    """It is stopped for ten minutes, then goes on: it was only not heard from."""
    run = Run(process=Process(stopped=((300, 900),)))
    return Scenario("stopped", _world(scraped, run), lost(290, 900))


@scenario
def ends_unsaid(scraped: bool) -> Scenario:
    """It ended, but its last 0 was never sent: it looks like a killed run."""
    run = Run(process=Process(gone=401), end=400, flushed=False)
    return Scenario("ends_unsaid", _world(scraped, run), lost(390))


@scenario
def long_lost(scraped: bool) -> Scenario:
    """A lost run is forgotten after six hours."""
    return Scenario("long_lost", _world(scraped, Run(process=Process(gone=400)), until=22_800), lost(390, 390 + 21_600))


@scenario
def resumed_elsewhere(scraped: bool) -> Scenario:
    """It is killed, resumed under the same id in another process, and ends there."""
    first = Run(process=Process(gone=400))
    second = Run(process=Process("b", born=450), start=450, end=900, moves=((450, 900),), attempt=2)
    return Scenario("resumed_elsewhere", _world(scraped, first, second, until=1500))


@scenario
def resumed_late(scraped: bool) -> Scenario:
    """It is lost until another process resumes it."""
    first = Run(process=Process(gone=300))
    second = Run(process=Process("b", born=900), start=900, moves=((900, math.inf),), attempt=2)
    return Scenario("resumed_late", _world(scraped, first, second), lost(290, 900))


@scenario
def attempt_killed(scraped: bool) -> Scenario:
    """One attempt ends cleanly; the next one, elsewhere, is killed."""
    first = Run(end=300)
    second = Run(process=Process("b", born=300, gone=600), start=350, moves=((350, math.inf),), attempt=2)
    return Scenario("attempt_killed", _world(scraped, first, second), lost(590, instance="b"))


@scenario
def gaps(scraped: bool) -> Scenario:
    """Two minutes are missing again and again while it makes progress, and almost three right over its end."""
    run = Run(process=Process(cut=((200, 320), (500, 620), (900, 1070))), end=1000)
    return Scenario("gaps", _world(scraped, run))


@scenario
def gap_while_stuck(scraped: bool) -> Scenario:
    """Two minutes are missing while it is stuck: the alert stays."""
    run = Run(process=Process(cut=((300, 420),)), moves=((0, 100), (700, math.inf)))
    return Scenario("gap_while_stuck", _world(scraped, run), stuck(160, 700))


@scenario
def outage(scraped: bool) -> Scenario:
    """The Collector is down for 12 minutes: only that is reported."""
    way = Way(down=((300, 1020),))
    return Scenario("outage", _world(scraped, Run(), way=way, until=1800), down(300, 1020))


@scenario
def outage_discovered(scraped: bool) -> Scenario:
    """The same if a target that is down is not listed at all, so that its name is unknown."""
    way = Way(down=((300, 1020),), vanishes=True)
    return Scenario("outage_discovered", _world(scraped, Run(), way=way, until=1800), down(300, 1020)[:1])


@scenario
def outage_over_an_end(scraped: bool) -> Scenario:
    """A run ends during an outage: its last 0 arrives late, and suffices."""
    way = Way(down=((300, 1020),))
    return Scenario("outage_over_an_end", _world(scraped, Run(end=600), way=way, until=1800), down(300, 1020))


@scenario
def killed_in_an_outage(scraped: bool) -> Scenario:
    """A run is killed during an outage: it is unheard since then, reported five minutes after the Collector is back."""
    way = Way(down=((300, 600),))
    run = Run(process=Process(gone=450))
    alerts = (*down(300, 600), Fires("OperationLost", 585 + BLIND, id="r1", severity="warning"))
    return Scenario("killed_in_an_outage", _world(scraped, run, way=way), alerts)


@scenario
def ends_in_an_outage(scraped: bool) -> Scenario:
    """Runs end during an outage, and nothing outlives their processes that could say so; one goes on, and is killed later."""
    way = Way(down=((300, 660),))
    runs = (
        Run(process=Process(gone=451), end=450, flushed=False),
        Run("r2", process=Process("b", gone=501), end=500, flushed=False),
        Run("r3", process=Process("c", gone=1200)),
    )
    unheard = [
        Fires("OperationLost", 645 + BLIND, id=run.id, instance=run.process.instance, severity="warning")
        for run in runs[:2]
    ]
    return Scenario(
        "ends_in_an_outage",
        _world(scraped, *runs, way=way, until=1800),
        (*down(300, 660), *unheard, *lost(1190, id="r3", instance="c")),
    )


@scenario
def ends_while_nothing_is_exported(scraped: bool) -> Scenario:
    """The Collector receives data but exports nothing, which shows three minutes later; a run ends meanwhile."""
    way = Way(blocked=((300, 1020),))
    run = Run(process=Process(gone=451), end=450, flushed=False)
    alerts = (*down(280 + GAP, 1020), Fires("OperationLost", 1005 + BLIND, id="r1", severity="warning"))
    return Scenario("ends_while_nothing_is_exported", _world(scraped, run, way=way, until=1800), alerts)


@scenario
def killed_before_an_outage(scraped: bool) -> Scenario:
    """A run is killed two minutes before an outage: its silence did not begin in it."""
    way = Way(down=((520, 900),))
    alerts = (*down(520, 900), Fires("OperationLost", 885 + BLIND, id="r1"))
    return Scenario(
        "killed_before_an_outage", _world(scraped, Run(process=Process(gone=400)), way=way, until=1500), alerts
    )


@scenario
def ends_before_a_restart(scraped: bool) -> Scenario:
    """A run ends, and the Collector restarts before the next scrape: nobody knows that it ended. Nor of work without series."""
    unseen = Process("b", gone=396, unseen=((0, math.inf),))
    world = _world(
        scraped, Run(process=Process(gone=396), end=395, flushed=False), way=Way(restarts=(398,)), alone=(unseen,)
    )
    alerts = (
        Fires("OperationLost", 390 + GAP + LOST_FOR, id="r1", severity="warning"),
        Fires("ReporterLost", 390 + GAP + LOST_FOR, name="", instance="b", severity="warning"),
    )
    return Scenario("ends_before_a_restart", world, alerts)


@scenario
def killed_around_a_restart(scraped: bool) -> Scenario:
    """Runs are killed two minutes and 70 s before a restart of the Collector, and right after it: their ends were not lost in it."""
    runs = (
        Run(process=Process(gone=280)),
        Run("r2", process=Process("b", gone=415)),
        Run("r3", process=Process("e", gone=331)),
    )
    alone = (Process("c", gone=280, unseen=((0, math.inf),)), Process("d", gone=415, unseen=((0, math.inf),)))
    alerts = (
        *lost(270),
        *lost(410, id="r2", instance="b"),
        *lost(330, id="r3", instance="e"),
        Fires("ReporterLost", 270 + GAP + LOST_FOR, name="", instance="c"),
        Fires("ReporterLost", 410 + GAP + LOST_FOR, name="", instance="d"),
    )
    return Scenario("killed_around_a_restart", _world(scraped, *runs, way=Way(restarts=(398,)), alone=alone), alerts)


@scenario
def restart_while_lost(scraped: bool) -> Scenario:
    """The Collector restarts three times while alerts about lost runs fire: they go on."""
    way = Way(down=((700, 710), (800, 840), (1200, 1210)))
    unseen = Process("b", gone=400, unseen=((0, math.inf),))
    runs = (Run(process=Process(gone=400)), Run("r2", process=Process("c")))
    alerts = (*lost(390), Fires("ReporterLost", 390 + GAP + LOST_FOR, name="", instance="b"))
    return Scenario("restart_while_lost", _world(scraped, *runs, way=way, alone=(unseen,), until=1800), alerts)


@scenario
def outage_while_lost(scraped: bool) -> Scenario:
    """In an outage a lost run stays lost, and one that is resumed in it is heard after it."""
    way = Way(down=((700, 1060),))
    runs = (
        Run(process=Process(gone=400)),
        Run("r2", process=Process("b", gone=400)),
        Run("r2", process=Process("c", born=800), start=800, moves=((800, math.inf),), attempt=2),
    )
    alerts = (*down(700, 1060), *lost(390), *lost(390, 1060, "r2", "b"))
    return Scenario("outage_while_lost", _world(scraped, *runs, way=way, until=1800), alerts)


@scenario
def unheard_and_restart(scraped: bool) -> Scenario:
    """The Collector restarts while a run is reported as unheard since an outage, which stops when it is heard."""
    way = Way(down=((300, 660), (1100, 1110)))
    run = Run(process=Process(cut=((400, 1400),)))
    alerts = (*down(300, 660), Fires("OperationLost", 645 + BLIND, 1400, id="r1", severity="warning"))
    return Scenario("unheard_and_restart", _world(scraped, run, way=way, until=1800), alerts)


def gone(begin: float, end: float = math.inf, id: str = "r1", instance: str = "a") -> tuple[Fires, ...]:
    """Return the alert of a run whose process is proven gone."""
    return (Fires("OperationLost", begin, end, id, instance=instance),)


@scenario
def proven(scraped: bool) -> Scenario:
    """It is killed, and a runner says so at once."""
    return Scenario("proven", _world(scraped, Run(process=Process(gone=400, proven=401))), gone(401))


@scenario
def proven_resumed(scraped: bool) -> Scenario:
    """It is proven gone, resumed elsewhere, proven gone again, and resumed to its end."""
    runs = (
        Run(process=Process(gone=300, proven=301)),
        Run(process=Process("b", born=400, gone=600, proven=601), start=400, moves=((400, math.inf),), attempt=2),
        Run(process=Process("c", born=800), start=800, end=900, moves=((800, 900),), attempt=3),
    )
    return Scenario("proven_resumed", _world(scraped, *runs), (*gone(301, 405), *gone(601, 805, instance="b")))


@scenario
def proven_resumed_behind(scraped: bool) -> Scenario:
    """It is proven gone late, and was resumed before that: the older attempt is no longer of interest."""
    runs = (
        Run(process=Process(gone=300, proven=500)),
        Run(process=Process("b", born=400), start=400, moves=((400, math.inf),), attempt=2),
    )
    return Scenario("proven_resumed_behind", _world(scraped, *runs))


@scenario
def lost_again_in_an_outage(scraped: bool) -> Scenario:
    """It is lost, goes on, and is killed in an outage: that is a new silence, which proves nothing yet."""
    way = Way(down=((900, 1260),))
    run = Run(process=Process(gone=950, stopped=((300, 700),)))
    unheard = Fires("OperationLost", 1245 + BLIND, id="r1", severity="warning")
    return Scenario(
        "lost_again_in_an_outage",
        _world(scraped, run, way=way, until=1800),
        (*lost(290, 700), *down(900, 1260), unheard),
    )


@scenario
def unseen_killed_before_an_outage(scraped: bool) -> Scenario:
    """A process with a run without series is killed two minutes before an outage."""
    way = Way(down=((520, 900),))
    process = Process(unseen=((0, math.inf),), gone=400)
    alerts = (*down(520, 900), Fires("ReporterLost", 885 + BLIND, name=""))
    return Scenario("unseen_killed_before_an_outage", _world(scraped, way=way, alone=(process,), until=1500), alerts)


@scenario
def proven_in_an_outage(scraped: bool) -> Scenario:
    """It is killed in an outage; its runner says so right after it."""
    way = Way(down=((300, 660),))
    run = Run(process=Process(gone=450, proven=451))
    return Scenario("proven_in_an_outage", _world(scraped, run, way=way, until=1500), (*down(300, 660), *gone(660)))


@scenario
def proven_late(scraped: bool) -> Scenario:
    """It is not heard from, and only later proven gone: one alert throughout. Another one is first unheard since an outage."""
    way = Way(down=((700, 1060),))
    runs = (
        Run(process=Process(gone=400, proven=660)),
        Run("r2", process=Process("b", gone=800, proven=1500)),
    )
    unheard = Fires("OperationLost", 1045 + BLIND, 1500, "r2", instance="b", severity="warning")
    alerts = (*down(700, 1060), *lost(390), unheard, *gone(1500, id="r2", instance="b"))
    return Scenario("proven_late", _world(scraped, *runs, way=way, until=1800), alerts)


@scenario
def late_reconnect(scraped: bool) -> Scenario:
    """After an outage one process comes back only after three more minutes."""
    way = Way(down=((300, 600),))
    run = Run(process=Process(cut=((300, 780),)))
    return Scenario("late_reconnect", _world(scraped, run, way=way), down(300, 600))


@scenario
def collector_restart(scraped: bool) -> Scenario:
    """The Collector restarts within half a minute."""
    return Scenario("collector_restart", _world(scraped, Run(), way=Way(down=((300, 330),))))


@scenario
def collector_blocked(scraped: bool) -> Scenario:
    """The Collector is up and receives data, but exports nothing."""
    way = Way(blocked=((300, 1020),))
    # Rates over 3m show the fault only when their whole window has it.
    return Scenario("collector_blocked", _world(scraped, Run(), way=way, until=1800), down(280 + GAP, 1020))


@scenario
def collector_refused(scraped: bool) -> Scenario:
    """The store behind the Collector refuses data; the series of the run arrive by another route."""
    way = Way(refused=((300, 700),))
    return Scenario("collector_refused", _world(scraped, Run(), way=way), down(290 + MOST, 690 + REST))


@scenario
def collector_refused_little(scraped: bool) -> Scenario:
    """The store refuses two of seven points, which other applications sent: a run that hangs is told as ever."""
    way = Way(foreign=((100, math.inf),))
    run = Run(moves=((0, 300),))
    return Scenario("collector_refused_little", _world(scraped, run, way=way), stuck(300 + 60))


@scenario
def collector_refused_once_at_rest(scraped: bool) -> Scenario:
    """Nothing runs, and the store refuses the only point that another application sent."""
    way = Way(resting=True, foreign=((300, 310),))
    return Scenario("collector_refused_once_at_rest", _world(scraped, way=way))


@scenario
def collector_refuses(scraped: bool) -> Scenario:
    """The Collector is up, and refuses all that comes for twelve minutes, as its memory is full: no run is lost."""
    way = Way(door=((300, 1020),))
    return Scenario("collector_refuses", _world(scraped, Run(), way=way, until=1800), down(290 + MOST, 1010 + REST))


@scenario
def collector_refuses_little(scraped: bool) -> Scenario:
    """The Collector refuses a part, which comes again: a run that is killed is lost as ever."""
    way = Way(pushes=((100, math.inf),))
    run = Run(process=Process(gone=400))
    return Scenario("collector_refuses_little", _world(scraped, run, way=way), lost(390))


@scenario
def one_of_two_collectors(scraped: bool) -> Scenario:
    """One of two Collectors is down: it is reported, and inhibits nothing."""
    way = Way(second=((200, 900),))
    run = Run(process=Process(gone=400))
    one = Fires("PipelineDown", 200 + DOWN_FOR, 900, name="", instance="c1", severity="warning")
    return Scenario("one_of_two_collectors", _world(scraped, run, way=way), (one, *lost(390)))


@scenario
def unwatched(scraped: bool) -> Scenario:
    """Prometheus does not scrape the Collector: the alerts work without protection against blindness."""
    run = Run(process=Process(gone=400))
    return Scenario("unwatched", _world(scraped, run, way=Way(watched=False)), lost(390))


@scenario
def frozen_value(scraped: bool) -> Scenario:
    """The Collector keeps the last value of a killed run for five minutes (only if it is scraped)."""
    way = Way(kept=300)
    run = Run(process=Process(gone=400))
    heard = 390 + (300 if scraped else 0)
    return Scenario("frozen_value", _world(scraped, run, way=way), lost(heard))


@scenario
def frozen_end(scraped: bool) -> Scenario:
    """The Collector keeps the last values of a stuck run that ended."""
    run = Run(process=Process(gone=501), moves=((0, 100),), end=499)
    return Scenario("frozen_end", _world(scraped, run, way=Way(kept=300)), stuck(160, 500))


@scenario
def two_hundred(scraped: bool) -> Scenario:
    """200 runs of one process are killed at once; 100 of them were stuck."""
    process = Process(gone=400)
    runs = tuple(Run(f"r{n}", process=process, moves=((0, 100 if n < 100 else math.inf),)) for n in range(200))
    alerts = [fires for n in range(200) for fires in lost(390, id=f"r{n}")]
    alerts += [fires for n in range(100) for fires in stuck(160, id=f"r{n}")]
    return Scenario("two_hundred", _world(scraped, *runs, until=750), tuple(alerts))


@scenario
def doubled(scraped: bool) -> Scenario:
    """Every series arrives twice with one differing label: stuck, then killed, with the same alerts as once."""
    run = Run(process=Process(gone=500), moves=((0, 100),), loops=((350, 500),), waits=(), slow_after=200)
    alerts = (
        *stuck(160),
        *lost(490),
        Fires("OperationLooping", 350 + LOOP_FOR, id="r1"),
        Fires("OperationSlow", 200 + SLOW_FOR, id="r1"),
    )
    return Scenario("doubled", _world(scraped, run, way=Way(doubled=True)), alerts)


@scenario
def clock_ahead(scraped: bool) -> Scenario:
    """The clock of the process is two minutes ahead: it makes progress, is stuck, recovers, is killed."""
    run = Run(process=Process(gone=800), moves=((0, 100), (500, math.inf)), slow_after=3000)
    late = 0 if scraped else 120
    return Scenario(
        "clock_ahead",
        _world(scraped, run, way=Way(skew=120), until=1500),
        (*stuck(160 + late, 500 + late), *lost(790 + late)),
    )


@scenario
def clock_behind(scraped: bool) -> Scenario:
    """The clock of the process is two minutes behind: it makes progress, is stuck, recovers, is killed."""
    run = Run(process=Process(gone=800), moves=((0, 100), (500, math.inf)), slow_after=3000)
    early = 0 if scraped else 120
    world = _world(scraped, run, way=Way(skew=-120), until=1500)
    return Scenario("clock_behind", world, (*stuck(160, 500), *lost(790 - early)))


@scenario
def clock_behind_fine(scraped: bool) -> Scenario:
    """The clock is two minutes behind, and the run is healthy to the end."""
    return Scenario("clock_behind_fine", _world(scraped, Run(end=800), way=Way(skew=-120)))


@scenario
def clock_far_behind(scraped: bool) -> Scenario:
    """The clock is four minutes behind: a run that is heard is never lost, and one that is killed is lost two minutes later."""
    alerts = lost(790) if scraped else (Fires("OperationLost", 790 + CLOCK_KEEP + LOST_FOR, id="r1"),)
    run = Run(process=Process(gone=800))
    return Scenario("clock_far_behind", _world(scraped, run, way=Way(skew=-240)), alerts)


@scenario
def rolling_restart(scraped: bool) -> Scenario:
    """20 processes are replaced one after the other: each ends its run, and a new one resumes it."""
    runs = []
    for n in range(20):
        at = 200 + 30 * n
        runs.append(Run(f"r{n}", process=Process(f"old{n}", gone=at + 2), end=at))
        new = Process(f"new{n}", born=at + 5)
        runs.append(Run(f"r{n}", process=new, start=at + 5, moves=((at + 5, math.inf),), attempt=2))
    return Scenario("rolling_restart", _world(scraped, *runs, until=1500))


def errors_in(process: Process, until: int) -> tuple[Fires, ...]:
    """Return when over a tenth of the runs that ended in the last 15 minutes had failed, and at least five had ended."""
    over = []
    for now in range(until):
        ended = [status for at, status in process.ended if now - 900 < at <= now]
        over.append(len(ended) >= 5 and ended.count("failed") > 0.1 * len(ended))
    begin = over.index(True)
    end = over.index(False, begin) if False in over[begin:] else math.inf
    return (Fires("ErrorRate", begin + ERROR_FOR, end, instance=""),)


@scenario
def fork(scraped: bool) -> Scenario:
    """The counters of a process restart at 0; some time later half of the runs fail."""
    ended = (
        *((float(at), "completed") for at in range(5, 400, 5)),
        *((float(at), "failed") for at in range(98, 400, 100)),
        *((float(at), "completed") for at in range(405, 2400, 20)),
        *((float(at), "failed") for at in range(615, 900, 20)),
    )
    process = Process(ended=ended, reset=400)
    return Scenario("fork", _world(scraped, Run(process=process), until=2000), errors_in(process, 2000))


@scenario
def errors(scraped: bool) -> Scenario:
    """Half of the runs fail from some moment on, for five minutes."""
    completed = ((float(at), "completed") for at in range(5, 3600, 20))
    process = Process(ended=(*completed, *((float(at), "failed") for at in range(615, 900, 20))))
    return Scenario("errors", _world(scraped, Run(process=process), until=2400), errors_in(process, 2400))


def cron(number: int, begin: float = 1200) -> Process:
    """Return the process of a short job, whose counters arrive only once it has ended."""
    born = begin + 40 * number
    return Process(f"cron{number}", born=born, gone=born + 21, ended=((born, "completed" if number % 5 else "failed"),))


@scenario
def errors_of_short_processes(scraped: bool) -> Scenario:
    """Each run has a process of its own, and one in five fails: of the first five the first one."""
    jobs = tuple(cron(number) for number in range(10))
    alerts = (Fires("ErrorRate", 1200 + 4 * 40 + ERROR_FOR, instance=""),)
    world = _world(scraped, Run("r", "other", Process()), alone=jobs, until=1900)
    return Scenario("errors_of_short_processes", world, alerts)


OLD_ERRORS = tuple((float(at), "failed") for at in range(1, 9))


@scenario
def errors_before_the_rules(scraped: bool) -> Scenario:
    """Counters of old failures arrive with the first scrapes, and again after a gap: these are no new failures."""
    process = Process(ended=OLD_ERRORS, cut=((0, 60), (1500, 1720)))
    return Scenario("errors_before_the_rules", _world(scraped, Run(process=process), until=2700))


@scenario
def errors_before_an_outage(scraped: bool) -> Scenario:
    """Counters of old failures arrive again after an outage of two hours."""
    world = _world(
        scraped, Run(process=Process(ended=OLD_ERRORS, cut=((0, 60),))), way=Way(down=((1500, 8700),)), until=10200
    )
    return Scenario("errors_before_an_outage", world, down(1500, 8700))


@scenario
def few_errors(scraped: bool) -> Scenario:
    """One in twenty fails; of another process only three runs end, which all fail."""
    often = Process(ended=tuple((float(at), "failed" if at % 400 == 0 else "completed") for at in range(20, 1800, 20)))
    seldom = Process("b", ended=((100.0, "failed"), (400.0, "failed"), (700.0, "failed")))
    runs = (Run(process=often), Run("r2", "other", seldom))
    return Scenario("few_errors", _world(scraped, *runs, until=1500))


@scenario
def slow(scraped: bool) -> Scenario:
    """It runs longer than its limit, and ends at last."""
    run = Run(slow_after=300, end=800)
    return Scenario("slow", _world(scraped, run), (Fires("OperationSlow", 300 + SLOW_FOR, 800, "r1"),))


@scenario
def slow_killed(scraped: bool) -> Scenario:
    """One is slow, and then killed; one is killed first, and does not become slow when nothing is heard of it."""
    runs = (
        Run(slow_after=300, process=Process(gone=600)),
        Run("r2", slow_after=800, process=Process("b", gone=600)),
    )
    alerts = (Fires("OperationSlow", 300 + SLOW_FOR, id="r1"), *lost(590), *lost(590, id="r2", instance="b"))
    return Scenario("slow_killed", _world(scraped, *runs), alerts)


@scenario
def slow_and_waits(scraped: bool) -> Scenario:
    """It is slow, and then waits again and again, which makes it no quicker."""
    waits = ((500.0, 700.0, None), (720.0, 900.0, None))
    run = Run(slow_after=300, waits=waits, moves=((0, 500), (700, 720), (900, math.inf)))
    return Scenario("slow_and_waits", _world(scraped, run), (Fires("OperationSlow", 300 + SLOW_FOR, id="r1"),))


@scenario
def slow_gap(scraped: bool) -> Scenario:
    """It is slow, and almost three minutes are missing."""
    run = Run(slow_after=300, process=Process(cut=((500, 660),)))
    return Scenario("slow_gap", _world(scraped, run), (Fires("OperationSlow", 300 + SLOW_FOR, id="r1"),))


@scenario
def slow_waits(scraped: bool) -> Scenario:
    """It exceeds its time limit while it waits: it is slow only once it works again."""
    run = Run(slow_after=300, waits=((200, 700, None),), moves=((0, 200), (700, math.inf)))
    return Scenario("slow_waits", _world(scraped, run), (Fires("OperationSlow", 700 + SLOW_FOR, id="r1"),))


@scenario
def slow_shortly(scraped: bool) -> Scenario:
    """It ends half a minute after its limit."""
    return Scenario("slow_shortly", _world(scraped, Run(slow_after=300, end=330)))


@scenario
def looping(scraped: bool) -> Scenario:
    """It loops, and recovers."""
    run = Run(loops=((200, 600),))
    return Scenario("looping", _world(scraped, run), (Fires("OperationLooping", 200 + LOOP_FOR, 600, "r1"),))


@scenario
def looping_ends(scraped: bool) -> Scenario:
    """It loops with two minutes missing, and ends."""
    run = Run(loops=((200, 600),), end=600, process=Process(cut=((300, 420),)))
    return Scenario("looping_ends", _world(scraped, run), (Fires("OperationLooping", 200 + LOOP_FOR, 600, "r1"),))


@scenario
def looping_shortly(scraped: bool) -> Scenario:
    """It loops for half a minute, which is reported at once."""
    alerts = (Fires("OperationLooping", 200 + LOOP_FOR, 229, "r1"),)
    return Scenario("looping_shortly", _world(scraped, Run(loops=((200, 229),))), alerts)


@scenario
def waits_too_long(scraped: bool) -> Scenario:
    """A wait is overdue, and ends; another one is overdue with two minutes missing, and the run ends in it."""
    run = Run(
        waits=((100, 500, 200), (600, 1100, 100)),
        moves=((0, 100), (500, 600)),
        end=1100,
        process=Process(cut=((800, 920),)),
    )
    alerts = (
        Fires("OperationOverdueWait", 300 + WAIT_FOR, 500, "r1"),
        Fires("OperationOverdueWait", 700 + WAIT_FOR, 1100, "r1"),
    )
    return Scenario("waits_too_long", _world(scraped, run, until=1500), alerts)


@scenario
def waits_a_little_too_long(scraped: bool) -> Scenario:
    """A wait is overdue for half a minute, which is reported at once, and one ends right at its limit."""
    run = Run(waits=((100, 329, 199.6), (400, 500, 100)), moves=((0, 100), (329, 400), (500, math.inf)))
    return Scenario("waits_a_little_too_long", _world(scraped, run), (Fires("OperationOverdueWait", 300, 329, "r1"),))


@scenario
def starts_late(scraped: bool) -> Scenario:
    """It has not started in time, two minutes are missing, then it starts."""
    run = Run(made=0, start=600, start_within=120, moves=((600, math.inf),), process=Process(cut=((300, 420),)))
    alerts = (Fires("OperationNotStarted", 120 + PENDING_FOR, 600, "r1"),)
    return Scenario("starts_late", _world(scraped, run), alerts)


@scenario
def starts_a_little_late(scraped: bool) -> Scenario:
    """It starts 15 s late."""
    run = Run(made=0, start=135, start_within=120, moves=((135, math.inf),))
    return Scenario("starts_a_little_late", _world(scraped, run))


@scenario
def unseen_stuck(scraped: bool) -> Scenario:
    """A run without series of its own is stuck, recovers, is stuck again, and ends, with two minutes missing."""
    process = Process(unseen=((0, 900),), ratio=((0, 0.1), (200, 1.0), (400, 0.1), (600, 2.0)), cut=((700, 850),))
    alerts = (
        Fires("StuckByName", 200 + NAME_FOR, 400),
        Fires("StuckByName", 600 + NAME_FOR, 900),
    )
    return Scenario("unseen_stuck", _world(scraped, until=1500, alone=(process,)), alerts)


@scenario
def unseen_stuck_killed(scraped: bool) -> Scenario:
    """A run without series of its own is stuck, and then killed: its name is stuck until the process is lost."""
    process = Process(unseen=((0, math.inf),), ratio=((200, 2.0),), gone=400)
    alerts = (
        Fires("StuckByName", 200 + NAME_FOR, 390 + NAME_GAP),
        Fires("ReporterLost", 390 + GAP + LOST_FOR, name=""),
    )
    return Scenario("unseen_stuck_killed", _world(scraped, alone=(process,)), alerts)


@scenario
def unseen_stuck_beside_stuck(scraped: bool) -> Scenario:
    """Beside a stuck run of its name, a run without series hangs, and still hangs when that one has recovered."""
    process = Process(unseen=((0, math.inf),), ratio=((200, 2.0),))
    run = Run(process=process, moves=((0, 100), (400, math.inf)))
    alerts = (*stuck(160, 400), Fires("StuckByName", 400 + GAP + NAME_FOR))
    return Scenario("unseen_stuck_beside_stuck", _world(scraped, run), alerts)


@scenario
def unseen_stuck_shortly(scraped: bool) -> Scenario:
    """A run without series of its own is over its limit for half a minute."""
    process = Process(unseen=((0, 900),), ratio=((0, 0.1), (200, 1.5), (230, 0.1)))
    return Scenario("unseen_stuck_shortly", _world(scraped, alone=(process,)))


@scenario
def unseen_killed(scraped: bool) -> Scenario:
    """A process with a run without series is killed; another process had only one such run, whose last value was 0."""
    killed = Process("a", gone=400, unseen=((0, math.inf),))
    done = Process("b", gone=500, unseen=((0, 490),))
    alerts = (Fires("ReporterLost", 390 + GAP + LOST_FOR, 390 + 3600, name=""),)
    return Scenario("unseen_killed", _world(scraped, until=4500, alone=(killed, done)), alerts)


@scenario
def unseen_beside_seen(scraped: bool) -> Scenario:
    """A process with one run with series and two without is killed."""
    process = Process(gone=400, unseen=((0, math.inf), (0, math.inf)))
    alerts = (Fires("ReporterLost", 390 + GAP + LOST_FOR, name=""), *lost(390))
    return Scenario("unseen_beside_seen", _world(scraped, Run(process=process)), alerts)


@scenario
def unseen_gap(scraped: bool) -> Scenario:
    """Almost three minutes of a process are missing, then the Collector is down for 12 minutes."""
    process = Process(unseen=((0, math.inf),), cut=((200, 370),))
    way = Way(down=((500, 1220),))
    return Scenario("unseen_gap", _world(scraped, way=way, until=1800, alone=(process,)), down(500, 1220))


@scenario
def unseen_silent_after_outage(scraped: bool) -> Scenario:
    """A process killed during an outage is unheard since then, and reported five minutes after it."""
    process = Process(unseen=((0, math.inf),), gone=450)
    alerts = (*down(300, 600), Fires("ReporterLost", 585 + BLIND, name="", severity="warning"))
    return Scenario(
        "unseen_silent_after_outage", _world(scraped, way=Way(down=((300, 600),)), alone=(process,)), alerts
    )


@scenario
def ends_in_one_of_two(scraped: bool) -> Scenario:
    """Every series arrives by two routes; on one of them the last 0 is missing."""
    run = Run(end=300, process=Process(gone=400))
    return Scenario("ends_in_one_of_two", _world(scraped, run, way=Way(doubled=True, doubled_until=290)))


@scenario
def gap_while_stuck_long(scraped: bool) -> Scenario:
    """It is stuck with two and a half minutes missing again and again: the alert stays."""
    run = Run(process=Process(cut=((300, 450), (460, 610), (620, 770))), moves=((0, 100),))
    return Scenario("gap_while_stuck_long", _world(scraped, run), stuck(160))


@scenario
def gap_while_looping(scraped: bool) -> Scenario:
    """It loops with two and a half minutes missing again and again: the alert stays."""
    run = Run(process=Process(cut=((300, 450), (460, 610), (620, 770))), loops=((100, math.inf),))
    return Scenario("gap_while_looping", _world(scraped, run), (Fires("OperationLooping", 100 + LOOP_FOR, id="r1"),))


@scenario
def attempt_ends_elsewhere(scraped: bool) -> Scenario:
    """It is killed, resumed elsewhere, and ended there long ago."""
    first = Run(process=Process(gone=200))
    second = Run(process=Process("b", born=250, gone=301), start=250, end=300, moves=((250, 300),), attempt=2)
    return Scenario("attempt_ends_elsewhere", _world(scraped, first, second))


@scenario
def one_of_two_killed(scraped: bool) -> Scenario:
    """Of two processes with a run each, one is killed."""
    runs = (Run(process=Process(gone=400)), Run("r2", process=Process("b")))
    return Scenario("one_of_two_killed", _world(scraped, *runs), lost(390))


@scenario
def slow_ends(scraped: bool) -> Scenario:
    """It ends right at its limit."""
    return Scenario("slow_ends", _world(scraped, Run(slow_after=300, end=301)))


@scenario
def unseen_ends_stuck(scraped: bool) -> Scenario:
    """A run without series of its own is stuck and ends; its process lives on and keeps sending the last ratio."""
    process = Process(unseen=((0, 500),), ratio=((0, 2.0),))
    alerts = (Fires("StuckByName", NAME_FOR, 500),)
    return Scenario("unseen_ends_stuck", _world(scraped, alone=(process,)), alerts)


@scenario
def unseen_beside_ended(scraped: bool) -> Scenario:
    """A process with a run without series is killed, after a run with series ended."""
    process = Process(gone=400, unseen=((0, math.inf),))
    alerts = (Fires("ReporterLost", 390 + GAP + LOST_FOR, name=""),)
    return Scenario("unseen_beside_ended", _world(scraped, Run(process=process, end=300)), alerts)


@scenario
def collector_overrun(scraped: bool) -> Scenario:
    """The queue of the Collector is full, and it drops four fifths of its data."""
    way = Way(overrun=((300, 700),))
    return Scenario("collector_overrun", _world(scraped, Run(), way=way), down(290 + NEARLY, 690 + 20))


@scenario
def collector_at_rest(scraped: bool) -> Scenario:
    """Nothing runs, so the Collector receives and sends nothing."""
    return Scenario("collector_at_rest", _world(scraped, way=Way(resting=True)))


@scenario
def progressing_often(scraped: bool) -> Scenario:
    """Many runs end, and one in fifty fails."""
    ended = tuple((float(at), "failed" if at % 250 == 0 else "completed") for at in range(5, 1800, 5))
    return Scenario("progressing_often", _world(scraped, Run(process=Process(ended=ended))))


@scenario
def cancelled_often(scraped: bool) -> Scenario:
    """Half of the runs are cancelled, which is no error."""
    ended = tuple((float(at), "cancelled" if at % 20 == 0 else "completed") for at in range(10, 1800, 10))
    return Scenario("cancelled_often", _world(scraped, Run(process=Process(ended=ended))))


# -- Branches side by side


@scenario
def branch_hangs(scraped: bool) -> Scenario:
    """One branch hangs beside one that makes progress, and recovers."""
    branches = (Line("moves"), Line("hangs", moves=((0, 100), (500, math.inf))))
    return Scenario("branch_hangs", _world(scraped, Run(branches=branches)), stuck(160, 500))


@scenario
def branch_hangs_beside_longer_idle(scraped: bool) -> Scenario:
    """A branch is beyond its limit beside others that are idle for longer, within their limits."""
    branches = (
        Line("long", moves=((0, 20), (700, math.inf)), stall_after=900),
        Line("listens", moves=((0, 20),), stall_after=None),
        Line("hangs", moves=((0, 300), (600, math.inf)), stall_after=120),
    )
    return Scenario("branch_hangs_beside_longer_idle", _world(scraped, Run(branches=branches)), stuck(420, 600))


@scenario
def branches_rest(scraped: bool) -> Scenario:
    """Each branch rests for less than its own limit, or may idle, and one waits for a long time."""
    branches = (
        Line("long", moves=((0, 20), (400, math.inf)), stall_after=900),
        Line("listens", moves=((0, 20),), stall_after=None),
        Line("asks", moves=((0, 20),), waits=((20, 900, None),)),
        Line("moves"),
    )
    return Scenario("branches_rest", _world(scraped, Run(branches=branches, end=900)))


@scenario
def branch_hangs_beside_wait(scraped: bool) -> Scenario:
    """A wait stops only the clock of its own branch: another branch hangs beside it."""
    branches = (
        Line("asks", moves=((0, 20), (900, math.inf)), waits=((20, 900, 2000),)),
        Line("hangs", moves=((0, 100), (500, math.inf))),
    )
    return Scenario("branch_hangs_beside_wait", _world(scraped, Run(branches=branches)), stuck(160, 500))


@scenario
def branch_overdue(scraped: bool) -> Scenario:
    """The wait of one branch is overdue beside a branch that makes progress."""
    branches = (Line("moves"), Line("asks", moves=((0, 100), (500, math.inf)), waits=((100, 500, 200),)))
    alerts = (Fires("OperationOverdueWait", 300 + WAIT_FOR, 500, "r1"),)
    return Scenario("branch_overdue", _world(scraped, Run(branches=branches)), alerts)


@scenario
def branch_loops(scraped: bool) -> Scenario:
    """One branch loops beside one that makes progress."""
    branches = (Line("moves"), Line("circles", loops=((200, 600),)))
    alerts = (Fires("OperationLooping", 200 + LOOP_FOR, 600, "r1"),)
    return Scenario("branch_loops", _world(scraped, Run(branches=branches)), alerts)


@scenario
def branch_without_a_limit_comes_after(scraped: bool) -> Scenario:
    """A stage that may idle follows a stage with a limit: the old limit no longer applies."""
    branches = (
        Line("loads", moves=((0, 300),), end=300),
        Line("listens", start=300, moves=((300, 300),), stall_after=None),
    )
    return Scenario("branch_without_a_limit_comes_after", _world(scraped, Run(branches=branches)))


# -- Children, in the same and in other processes

IDLE_FROM_100: tuple[tuple[float, float], ...] = ((0, 100), (900, math.inf))
"""Return a parent that does nothing itself from 100 to 900."""
IDLE_FOR_GOOD: tuple[tuple[float, float], ...] = ((0, 100),)


def child(
    id: str = "c1",
    instance: str = "b",
    start: float = 90,
    end: float = math.inf,
    moves: tuple[tuple[float, float], ...] = ((0, math.inf),),
    process: Process | None = None,
    parent: str = "r1",
    attempt: int = 1,
    name: str = "part",
    parent_name: str | None = None,
    parent_job: str = JOB,
) -> Run:
    """Return a child operation, which makes progress all the time by default."""
    where = process or Process(instance)
    of = parent_name or ("part" if parent.startswith("c") else "load")
    return Run(
        id,
        name,
        where,
        start,
        end=end,
        moves=moves,
        parent=parent,
        parent_name=of,
        parent_job=parent_job,
        attempt=attempt,
    )


@scenario
def child_here_beside_hang(scraped: bool) -> Scenario:
    """A stage hangs beside a child in the same process that makes progress: that process knows it, and it alerts."""
    here = child(instance="a")
    parent = Run(branches=(Line("hangs", moves=IDLE_FOR_GOOD),), children=(here,))
    return Scenario("child_here_beside_hang", _world(scraped, parent, here), stuck(160))


@scenario
def child_here_stuck(scraped: bool) -> Scenario:
    """A parent waits for a stuck child in the same process: the child alerts, and the parent does not."""
    here = child(instance="a", moves=((0, 300), (600, math.inf)))
    parent = Run(moves=IDLE_FROM_100, children=(here,))
    return Scenario("child_here_stuck", _world(scraped, parent, here), stuck(360, 600, "c1", "a", "part"))


@scenario
def child_elsewhere(scraped: bool) -> Scenario:
    """A parent waits for a child in another process, for much longer than its own limit."""
    return Scenario("child_elsewhere", _world(scraped, Run(moves=IDLE_FROM_100), child(end=900)))


@scenario
def child_elsewhere_of_an_impatient_parent(scraped: bool) -> Scenario:
    """A parent with a limit of 10 s starts a child elsewhere, which is known only after that."""
    parent = Run(moves=((0, 100), (900, math.inf)), stall_after=10)
    return Scenario("child_elsewhere_of_an_impatient_parent", _world(scraped, parent, child(start=121, end=895)))


@scenario
def child_elsewhere_comes_late(scraped: bool) -> Scenario:
    """A parent is stuck, and then a child begins in another process."""
    world = _world(scraped, Run(moves=IDLE_FROM_100), child(start=400, end=900))
    return Scenario("child_elsewhere_comes_late", world, stuck(160, 405))


@scenario
def child_elsewhere_stuck(scraped: bool) -> Scenario:
    """The child in another process is stuck: the child alerts, and the parent does not."""
    world = _world(scraped, Run(moves=IDLE_FROM_100), child(end=900, moves=((0, 300), (700, 900))))
    return Scenario("child_elsewhere_stuck", world, stuck(360, 700, "c1", "b", "part"))


@scenario
def child_elsewhere_killed(scraped: bool) -> Scenario:
    """The child in another process is killed: it is lost, and when it is no longer known its parent is stuck."""
    world = _world(scraped, Run(moves=IDLE_FOR_GOOD), child(process=Process("b", gone=400)))
    return Scenario("child_elsewhere_killed", world, (*lost(390, math.inf, "c1", "b", "part"), *stuck_after(400 + GAP)))


@scenario
def child_elsewhere_ends(scraped: bool) -> Scenario:
    """The child in another process ends, and the parent does not go on within its own limit."""
    world = _world(scraped, Run(moves=IDLE_FOR_GOOD), child(end=500))
    return Scenario("child_elsewhere_ends", world, stuck_after(500))


@scenario
def children_elsewhere_in_turn(scraped: bool) -> Scenario:
    """Children in other processes run one after the other, with less than the parent's limit between them."""
    turns = (child("c1", start=90, end=300), child("c2", "c", start=350, end=600), child("c3", start=650, end=900))
    return Scenario("children_elsewhere_in_turn", _world(scraped, Run(moves=IDLE_FROM_100), *turns))


@scenario
def children_elsewhere(scraped: bool) -> Scenario:
    """There are several children of one name, in one process and in two; every series arrives twice."""
    runs = (child("c1", end=300), child("c2", end=600), child("c3", "c", end=900), child("c4", "c", end=900))
    world = _world(scraped, Run(moves=IDLE_FROM_100), *runs, way=Way(doubled=True))
    return Scenario("children_elsewhere", world)


@scenario
def child_elsewhere_ends_in_one_of_two(scraped: bool) -> Scenario:
    """Every series arrives by two routes; on one the child's last 0 is missing: it has ended."""
    world = _world(
        scraped, Run(moves=IDLE_FOR_GOOD), child(end=500), way=Way(doubled=True, doubled_until=490), until=900
    )
    return Scenario("child_elsewhere_ends_in_one_of_two", world, stuck_after(500))


@scenario
def children_here_and_elsewhere(scraped: bool) -> Scenario:
    """A stage is idle beside a child here and one elsewhere, for which it may wait; the latter ends first."""
    here = child("c1", "a")
    parent = Run(branches=(Line("waits or hangs", moves=IDLE_FOR_GOOD),), children=(here,))
    world = _world(scraped, parent, here, child("c2", end=600))
    return Scenario("children_here_and_elsewhere", world, stuck_after(600))


@scenario
def grandchild_elsewhere(scraped: bool) -> Scenario:
    """A parent waits for a child elsewhere, which itself waits for a child in a third process."""
    middle = child("c1", end=900, moves=((90, 110),))
    below = child("g1", "c", start=110, end=890, parent="c1")
    return Scenario("grandchild_elsewhere", _world(scraped, Run(moves=IDLE_FROM_100), middle, below))


@scenario
def grandchild_elsewhere_of_a_child_here(scraped: bool) -> Scenario:
    """A parent waits for a child in its own process, which itself waits for a child in another one."""
    middle = child("c1", "a", end=900, moves=((90, 110),))
    below = child("g1", "c", start=110, end=890, parent="c1")
    world = _world(scraped, Run(moves=IDLE_FROM_100, children=(middle,)), middle, below)
    return Scenario("grandchild_elsewhere_of_a_child_here", world)


@scenario
def grandchild_elsewhere_stuck(scraped: bool) -> Scenario:
    """The grandchild in a third process is stuck: only that one alerts."""
    middle = child("c1", end=900, moves=((90, 110),))
    below = child("g1", "c", start=110, end=890, parent="c1", moves=((110, 300), (600, 890)))
    world = _world(scraped, Run(moves=IDLE_FROM_100), middle, below)
    return Scenario("grandchild_elsewhere_stuck", world, stuck(360, 600, "g1", "c", "part"))


@scenario
def killed_in_one_of_two_environments(scraped: bool) -> Scenario:
    """The same nightly run is in production and in staging, and production's is killed: staging's is not it."""
    runs = (
        Run(process=Process("p", environment="prod", gone=400)),
        Run(process=Process("s", environment="staging"), start=20),
    )
    return Scenario("killed_in_one_of_two_environments", _world(scraped, *runs), lost(390, instance="p"))


@scenario
def proven_in_one_of_two_environments(scraped: bool) -> Scenario:
    """The same, and a runner proves the death, while staging's run starts again later."""
    runs = (
        Run(process=Process("p", environment="prod", gone=400, proven=401)),
        Run(process=Process("s", environment="staging", born=600), start=600, moves=((600, math.inf),)),
    )
    return Scenario("proven_in_one_of_two_environments", _world(scraped, *runs), gone(401, instance="p"))


@scenario
def child_in_one_of_two_environments(scraped: bool) -> Scenario:
    """A child of staging's run works, and production's run of the same id hangs: that child is none of it."""
    waits = Run(process=Process("s", environment="staging"), moves=IDLE_FROM_100)
    hangs = Run(process=Process("p", environment="prod"), moves=IDLE_FOR_GOOD)
    below = child(end=900, process=Process("b", environment="staging"))
    return Scenario("child_in_one_of_two_environments", _world(scraped, waits, hangs, below), stuck(160, instance="p"))


@scenario
def child_of_an_id_in_one_of_two_environments(scraped: bool) -> Scenario:
    """The same with a child that was given no more than its parent's id."""
    waits = Run(process=Process("s", environment="staging"), moves=IDLE_FROM_100)
    hangs = Run(process=Process("p", environment="prod"), moves=IDLE_FOR_GOOD)
    below = replace(child(end=900, process=Process("b", environment="staging")), parent_name=None)
    world = _world(scraped, waits, hangs, below)
    return Scenario("child_of_an_id_in_one_of_two_environments", world, stuck(160, instance="p"))


@scenario
def environment_comes_later(scraped: bool) -> Scenario:
    """The series of a run get their environment while it runs: those without it are no other run, and none is lost."""
    before = Run(process=Process(gone=400))
    after = Run(process=Process(born=400, environment="prod"))
    return Scenario("environment_comes_later", _world(scraped, before, after))


@scenario
def slow_for_less_than_a_minute(scraped: bool) -> Scenario:
    """It ends 55 s after its limit: what was never told is not told as over."""
    return Scenario("slow_for_less_than_a_minute", _world(scraped, Run(slow_after=300, end=355)))


@scenario
def parent_unknown(scraped: bool) -> Scenario:
    """A child of a parent without series here is stuck, and so is an unrelated run."""
    runs = (child(moves=((0, 300),), parent="r9"), Run(moves=IDLE_FOR_GOOD))
    return Scenario(
        "parent_unknown", _world(scraped, *runs), (*stuck(360, id="c1", instance="b", name="part"), *stuck(160))
    )


@scenario
def one_of_two_waits_for_a_child(scraped: bool) -> Scenario:
    """Of two idle runs of a name in a process, one waits for a child elsewhere: only the other one alerts."""
    runs = (Run(moves=IDLE_FROM_100), Run("r2", moves=IDLE_FROM_100), child(end=900))
    alerts = stuck(160, 900, "r2")
    return Scenario("one_of_two_waits_for_a_child", _world(scraped, *runs), alerts)


@scenario
def same_id_in_two_services(scraped: bool) -> Scenario:
    """Two services use one id: the run whose child works in a third service waits, and the other one hangs."""
    waits = Run(process=Process("u", job="us"), moves=IDLE_FROM_100)
    hangs = Run(process=Process("e", job="eu"), moves=IDLE_FOR_GOOD)
    world = _world(scraped, waits, hangs, child(end=900, parent_job="us"))
    return Scenario("same_id_in_two_services", world, stuck(160, instance="e"))


@scenario
def same_id_in_two_services_gaps(scraped: bool) -> Scenario:
    """Almost three minutes of that child are missing: its parent is held back all the same."""
    waits = Run(process=Process("u", job="us"), moves=IDLE_FROM_100, stall_after=30)
    other = Run(process=Process("e", job="eu"))
    where = Process("b", cut=((200, 370), (380, 550)))
    world = _world(scraped, waits, other, child(end=900, parent_job="us", process=where))
    return Scenario("same_id_in_two_services_gaps", world)


@scenario
def same_id_of_two_names(scraped: bool) -> Scenario:
    """Two operations of a service have the date as their id: only that with a child elsewhere is held back."""
    waits = Run(moves=IDLE_FROM_100)
    hangs = Run(name="other", process=Process("e"), moves=IDLE_FOR_GOOD)
    world = _world(scraped, waits, hangs, child(end=900))
    return Scenario("same_id_of_two_names", world, stuck(160, instance="e", name="other"))


@scenario
def same_instance_in_two_services(scraped: bool) -> Scenario:
    """Two services number their instances, and the parent and its child have the same number: these are two processes."""
    world = _world(scraped, Run(moves=IDLE_FROM_100), child(end=900, process=Process("a", job="parts")))
    return Scenario("same_instance_in_two_services", world)


@scenario
def child_that_knows_only_an_id(scraped: bool) -> Scenario:
    """A child elsewhere was given no more than its parent's id: it holds the parent back, if that is the only one."""
    only = replace(child(end=900), parent_name=None)
    return Scenario("child_that_knows_only_an_id", _world(scraped, Run(moves=IDLE_FROM_100), only))


@scenario
def children_that_know_only_an_id(scraped: bool) -> Scenario:
    """Children of two names that were given only the id are in one process."""
    only = tuple(
        replace(child(id, end=900, name=name), parent_name=None) for id, name in (("c1", "part"), ("c2", "other"))
    )
    return Scenario("children_that_know_only_an_id", _world(scraped, Run(moves=IDLE_FROM_100), *only))


@scenario
def child_that_knows_only_an_id_of_two(scraped: bool) -> Scenario:
    """The id is that of two runs: neither is held back, as a hang must not be hidden."""
    runs = (Run(moves=IDLE_FOR_GOOD), Run(process=Process("e", job="eu"), moves=IDLE_FOR_GOOD))
    only = replace(child(end=900), parent_name=None)
    world = _world(scraped, *runs, only)
    return Scenario("child_that_knows_only_an_id_of_two", world, (*stuck(160), *stuck(160, instance="e")))


@scenario
def ends_in_haste(scraped: bool) -> Scenario:
    """A worker says that its only run ended, and is gone before it could send its metrics by name."""
    worker = Process(gone=401, counted_until=395)
    return Scenario("ends_in_haste", _world(scraped, Run(process=worker, end=400)))


@scenario
def ends_in_haste_beside_unseen(scraped: bool) -> Scenario:
    """The same, with a second operation that has no series: that one is lost with its worker."""
    worker = Process(gone=401, counted_until=395, unseen=((0, math.inf),))
    alerts = (Fires("ReporterLost", 400 + GAP + LOST_FOR, name=""),)
    return Scenario("ends_in_haste_beside_unseen", _world(scraped, Run(process=worker, end=400)), alerts)


@scenario
def child_elsewhere_resumed(scraped: bool) -> Scenario:
    """The child is killed, and resumed in a third process under the same id."""
    first = child(process=Process("b", gone=300))
    second = child("c1", "c", start=420, end=900, attempt=2)
    return Scenario("child_elsewhere_resumed", _world(scraped, Run(moves=IDLE_FROM_100), first, second))


@scenario
def parent_resumed_where_its_child_is_not(scraped: bool) -> Scenario:
    """A parent is killed and resumed elsewhere, while its child goes on in a third process."""
    first = Run(process=Process(gone=200), moves=IDLE_FROM_100)
    second = Run(process=Process("d", born=250), start=250, moves=((250, 260), (900, math.inf)), attempt=2)
    return Scenario("parent_resumed_where_its_child_is_not", _world(scraped, first, second, child(end=900)))


@scenario
def child_elsewhere_gaps(scraped: bool) -> Scenario:
    """Almost three minutes of the child are missing again and again: its parent is held back throughout."""
    where = Process("b", cut=((200, 370), (380, 550), (560, 730)))
    world = _world(scraped, Run(moves=IDLE_FROM_100, stall_after=30), child(end=900, process=where))
    return Scenario("child_elsewhere_gaps", world)


@scenario
def child_elsewhere_after_outage(scraped: bool) -> Scenario:
    """After an outage the child's process comes back only after three more minutes."""
    where = Process("b", cut=((300, 780),))
    world = _world(scraped, Run(moves=IDLE_FROM_100), child(end=900, process=where), way=Way(down=((300, 600),)))
    return Scenario("child_elsewhere_after_outage", world, down(300, 600))


@scenario
def children_here_of_two_kinds(scraped: bool) -> Scenario:
    """Two children of different names are in the parent's own process, beside a stage that hangs: the stage alerts."""
    here = (child("c1", "a"), child("c2", "a", name="other"))
    parent = Run(branches=(Line("hangs", moves=IDLE_FOR_GOOD),), children=here)
    return Scenario("children_here_of_two_kinds", _world(scraped, parent, *here), stuck(160))


@scenario
def child_elsewhere_seldom_counted(scraped: bool) -> Scenario:
    """The ratio of a name comes from another export than the series of its runs: it may be two minutes old."""
    process = Process(ratio=((160, 1.5), (1020, 0.1)))
    world = _world(scraped, Run(process=process, moves=IDLE_FROM_100), child(end=900))
    return Scenario("child_elsewhere_seldom_counted", world)


@scenario
def child_elsewhere_beside_unseen(scraped: bool) -> Scenario:
    """Beside a parent that is held back, a run of another name without series hangs: that one alerts."""
    process = Process(unseen=((0, math.inf),), ratio=((200, 2.0),))
    lonely = Run("r2", "other", process)
    world = _world(scraped, Run(process=process, moves=IDLE_FROM_100), lonely, child(end=900), until=1000)
    return Scenario("child_elsewhere_beside_unseen", world, (Fires("StuckByName", 200 + NAME_FOR, name="other"),))


@scenario
def unseen_stuck_beside_parent(scraped: bool) -> Scenario:
    """Beside a parent that waited for a child elsewhere and goes on, a run of its name without series hangs."""
    process = Process(unseen=((0, math.inf),), ratio=((0, 0.1), (700, 2.0)))
    world = _world(scraped, Run(process=process, moves=((0, 100), (400, math.inf))), child())
    return Scenario("unseen_stuck_beside_parent", world, (Fires("StuckByName", 700 + NAME_FOR),))


@scenario
def parent_stuck_and_restart(scraped: bool) -> Scenario:
    """A parent is stuck minutes after its child elsewhere was killed; restarts of the Collector bring it not back."""
    child_gone = child(process=Process("b", gone=400))
    world = _world(scraped, Run(moves=IDLE_FOR_GOOD), child_gone, way=Way(down=((800, 820), (1000, 1040))), until=1500)
    return Scenario(
        "parent_stuck_and_restart", world, (*lost(390, math.inf, "c1", "b", "part"), *stuck_after(400 + GAP))
    )


@scenario
def parent_once_stuck_and_outage(scraped: bool) -> Scenario:
    """A parent was stuck and went on; in an outage it may wait for a new child elsewhere, so it is held back."""
    runs = (
        Run(moves=((0, 100), (400, 900), (1500, math.inf))),
        child(end=150),
        child("c2", "c", start=905, end=1490, process=Process("c", cut=((900, 1280),))),
    )
    world = _world(scraped, *runs, way=Way(down=((900, 1100),)), until=1800)
    alerts = (*stuck(150 - ROUND + 60 + CHILD_KNOWN, 400), *down(900, 1100))
    return Scenario("parent_once_stuck_and_outage", world, alerts)


@scenario
def parent_stuck_before_its_child_and_outage(scraped: bool) -> Scenario:
    """A parent is stuck until a child begins elsewhere, which an outage cuts off: the parent is held back meanwhile."""
    where = Process("b", cut=((700, 1180),))
    world = _world(
        scraped,
        Run(moves=((0, 100), (1500, math.inf))),
        child(start=400, end=1490, process=where),
        way=Way(down=((700, 1000),)),
        until=1800,
    )
    return Scenario("parent_stuck_before_its_child_and_outage", world, (*stuck(160, 405), *down(700, 1000)))


@scenario
def stuck_killed_recovered(scraped: bool) -> Scenario:
    """It is stuck and not heard for a minute, goes on, and is not heard again half an hour later: that is no trouble."""
    run = Run(process=Process(cut=((300, 520), (1000, 1200))), moves=((0, 100), (500, math.inf)))
    return Scenario("stuck_killed_recovered", _world(scraped, run, until=1500), stuck(160, 520))


@scenario
def branch_hangs_beside_loop(scraped: bool) -> Scenario:
    """One branch loops, another one hangs beside it and recovers: both are told, and Alertmanager sends the hang."""
    branches = (
        Line("circles", loops=((100, 800),), line="agent.py:7 in turn"),
        Line("hangs", moves=((0, 200), (600, math.inf))),
    )
    alerts = (*stuck(260, 600), Fires("OperationLooping", 100 + LOOP_FOR, 800, "r1"))
    return Scenario("branch_hangs_beside_loop", _world(scraped, Run(branches=branches)), alerts)


@scenario
def branch_overdue_beside_hang(scraped: bool) -> Scenario:
    """The wait of one branch is overdue beside a branch that hangs: both are told, each with its own stage."""
    branches = (
        Line("hangs", moves=((0, 100), (700, math.inf))),
        Line("approval", moves=((0, 100), (800, math.inf)), waits=((100, 800, 200),)),
    )
    alerts = (*stuck(160, 700), Fires("OperationOverdueWait", 300 + WAIT_FOR, 800, "r1"))
    return Scenario("branch_overdue_beside_hang", _world(scraped, Run(branches=branches)), alerts)


SCENARIOS = tuple(make(scraped) for make in _MAKERS for scraped in (True, False))
