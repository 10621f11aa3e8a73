"""Work is what counts, not the time on the wall."""

from model import work_clock
from model.work_clock import WorkClock


def test_time_in_which_nothing_ran_is_no_work(monkeypatch, caplog):
    wall, computed = iter([0, 3, 103, 105, 205]), iter([0, 3, 4, 6, 100])
    monkeypatch.setattr(work_clock.time, "monotonic", lambda: next(wall))
    monkeypatch.setattr(work_clock.time, "process_time", lambda: next(computed))
    clock = WorkClock(10.0)
    assert [clock.seconds() for _ in range(4)] == [13, 14, 16, 116]
    assert caplog.messages == ["for 99 s the training did not run (suspended?); they do not count "
                               "for its time budget"]
