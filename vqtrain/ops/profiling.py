"""Where the time of a step goes, by the parts of what is trained.

Works for any loop: ``marked`` names the calls that are of a part, ``profiler`` records steps, each
within ``record_function(STEP)``, and ``time_by_part`` adds up what is in them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

STEP = "step"
# Of ranges that are a part's, and of torch's own ones.
PREFIX = "part::"
NATIVE = {"enumerate(DataLoader)": "data", "Optimizer.": "optimizer"}
BACKWARD = "autograd::engine::evaluate_function: "
OTHER, IDLE = "other", "idle"

MAX_OPERATIONS = 15


@final
@dataclass(kw_only=True)
class PartTime:
    """The time of one part, in seconds a step.

    Attributes:
        forward: Of its calls.
        backward: Of the backward pass of what they computed, recomputed activations among it.
    """

    forward: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """Both together."""
        return self.forward + self.backward


@final
@dataclass(frozen=True, kw_only=True)
class Call:
    """A call whose time is a part's.

    Attributes:
        part: Name of the part.
        owner: A module, or the object that has the method.
        method: Name of a method; None for the call of a module.
    """

    part: str
    owner: object
    method: str | None = None


@contextmanager
def marked(calls: Iterable[Call]) -> Iterator[None]:
    """Return a context in which each of these calls is a range of its part in a profile.

    Outside it they are as they were: they cost nothing.
    """
    with ExitStack() as stack:
        for call in calls:
            owner, name = call.owner, call.method
            if name is None:
                assert isinstance(owner, nn.Module), "other objects are called by a method"
                # What the call of a module comes to, compiled or not, with all its hooks.
                name = "_compiled_call_impl"
                function = owner._compiled_call_impl or owner._call_impl
            else:
                function = getattr(owner, name)
            stack.callback(_put_back, owner, name, vars(owner).get(name))
            setattr(owner, name, partial(_call_in_range, call.part, function))
        yield


def _put_back(owner: object, name: str, before: object) -> None:
    if before is None:  # it is the class's
        delattr(owner, name)
    else:
        setattr(owner, name, before)


def _call_in_range(
    part: str, function: Callable[..., object], *args: object, **kwargs: object
) -> object:
    with record_function(f"{PREFIX}{part}"):
        return function(*args, **kwargs)


def profiler() -> profile:
    """Build a profiler of this process, and of its GPU if there is one."""
    # Otherwise it prints to every user without a GPU that there is none.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    return profile(activities=activities)


def time_by_part(prof: profile) -> dict[str, PartTime]:
    """Add up where the time of the steps in a profile went.

    A backward node is of the part that made it in the forward pass. On a CPU the times are those of
    the thread that trains; on a GPU they are those of its kernels, ``idle`` is the rest of the
    time, and ``data`` is as much of that as the process was waiting for batches.

    Args:
        prof: From ``profiler``; it has ended, and each step is a range called ``STEP``.

    Returns:
        The time of each part that took any, and of ``other``; together they are the time of a step.
    """
    found = [event for event in events_of(prof) if event.device_type.name == "CPU"]
    events = sorted(found, key=lambda e: (e.time_range.start, -e.time_range.end))
    steps = [event for event in events if event.name == STEP and event.is_user_annotation]
    on_device = any(event.self_device_time_total > 0 for event in events)
    places = places_of(events)
    times: dict[str, PartTime] = {}
    waited_s = 0.0
    for event in events:
        start = event.time_range.start
        if not any(step.time_range.start <= start < step.time_range.end for step in steps):
            continue
        part, is_backward = places[event.id]
        own = event.self_device_time_total if on_device else event.self_cpu_time_total
        is_training = event.thread == steps[0].thread
        if is_training and part == "data":
            waited_s += event.self_cpu_time_total / 1e6 / len(steps)
        if on_device or is_training:
            time = times.setdefault(part, PartTime())
            seconds = own / 1e6 / len(steps)
            time.backward += seconds if is_backward else 0.0
            time.forward += 0.0 if is_backward else seconds
    if on_device:
        whole = (
            sum(step.time_range.end - step.time_range.start for step in steps) / 1e6 / len(steps)
        )
        idle = max(0.0, whole - sum(time.total for time in times.values()))
        times.setdefault("data", PartTime()).forward += min(waited_s, idle)
        times[IDLE] = PartTime(forward=max(0.0, idle - waited_s))
    return {part: time for part, time in times.items() if time.total > 0 or part == OTHER}


def events_of(prof: profile) -> Sequence[FunctionEvent]:
    """Return what a profile has recorded."""
    events: Sequence[FunctionEvent] = prof.events()  # type: ignore[no-untyped-call]  # torch's own
    return events


def places_of(events: Iterable[FunctionEvent]) -> dict[int, tuple[str, bool]]:
    """Say of each event which part it belongs to, and whether it is of the backward pass.

    Args:
        events: In the order of their beginnings, and outer ones before inner ones.
    """
    places: dict[int, tuple[str, bool]] = {}
    made: dict[tuple[int, int], str] = {}  # by the thread and the number of a backward node
    latest: dict[int, str] = {}  # of each thread: the part of its latest backward node
    for event in events:
        parent = event.cpu_parent
        place = (OTHER, False) if parent is None else places.get(parent.id, (OTHER, False))
        if event.name.startswith(BACKWARD):
            # Those that add to a weight's gradient have no number, and follow the one that made it.
            number = event.fwd_thread or 0, event.sequence_nr
            part = made.get(number, latest.get(event.thread, OTHER))
            latest[event.thread] = part
            place = part, True
        elif event.is_user_annotation and place == (OTHER, False):
            place = part_of_range(event.name), False
        if event.sequence_nr >= 0 and not event.fwd_thread:
            made[event.thread, event.sequence_nr] = place[0]  # the last one has made the node
        places[event.id] = place
    return places


def part_of_range(name: str) -> str:
    """Return the part that a range stands for."""
    if name.startswith(PREFIX):
        return name.removeprefix(PREFIX)
    return next((part for start, part in NATIVE.items() if name.startswith(start)), OTHER)


def describe(times: Mapping[str, PartTime]) -> list[str]:
    """Write a table of the times of a step, the longest first."""
    whole = sum(time.total for time in times.values())
    lines = [f"{'part':<16}{'forward':>12}{'backward':>12}{'a step':>12}{'share':>8}"]
    for part, time in sorted(times.items(), key=lambda item: -item[1].total):
        row = (time.forward, time.backward, time.total)
        cells = "".join(f"{1e3 * seconds:>9.2f} ms" for seconds in row)
        lines.append(f"{part:<16}{cells}{time.total / whole:>8.1%}")
    return [*lines, f"{'whole':<40}{1e3 * whole:>9.2f} ms{1:>8.1%}"]


def describe_operations(prof: profile) -> list[str]:
    """Write a table of the operations that took longest in all steps, without what they call."""
    ranges = {event.name for event in events_of(prof) if event.is_user_annotation}
    found = [each for each in prof.key_averages() if each.key not in ranges]
    on_device = any(each.self_device_time_total > 0 for each in found)
    times = {
        each.key: each.self_device_time_total if on_device else each.self_cpu_time_total
        for each in found
    }
    counts = {each.key: each.count for each in found}
    longest = sorted(times, key=lambda name: -times[name])[:MAX_OPERATIONS]
    return [
        f"{'operation':<48}{'calls':>8}{'time':>12}",
        *(
            f"{name.removeprefix(BACKWARD):<48}{counts[name]:>8}{times[name] / 1e3:>9.2f} ms"
            for name in longest
        ),
    ]
