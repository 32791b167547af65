"""Ctrl-C and SIGTERM: recorded, so that the current step can end."""

from __future__ import annotations

import signal
import threading


class Signals:
    """`came`: whether a signal was caught; a second signal has its usual effect. Only the main thread can catch
    signals."""

    def __enter__(self) -> Signals:
        self.came, self._before = False, {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.came = True
        self.__exit__()
