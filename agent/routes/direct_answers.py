"""Whether the model servers of this host answer well when they are asked without a user interface between."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from agent.bounded import entry
from agent.routes.answer import Answer, answer_of
from agent.routes.names import GENERATING
from agent.routes.window import CountWindow
from probes.http.facts import RouteName
from probes.observation import Exchange, ServerKind

UI_SERVERS: Final = frozenset({ServerKind.OPEN_WEBUI})
"""What stands between people and a model server and answers on routes of the same shape."""

NOTHING_TO_READ: Final = frozenset({Answer.EMPTY, Answer.IN_REASONING, Answer.BLANK})
"""What a page shows nothing of."""

_PORTS: Final = 64
_LEAST: Final = 5
_SHARE: Final = 0.8


def is_of_ui(exchange: Exchange) -> bool:
    """Whether a user interface served this exchange, not a model server."""
    return exchange.origin.server in UI_SERVERS and exchange.facts.name.route in GENERATING


class DirectAnswers:
    """Counts good and bad answers of each port that is no user interface's, over a window."""

    def __init__(self, *, window_s: float) -> None:
        self._window_s = window_s
        self._ports: OrderedDict[int, CountWindow] = OrderedDict()

    def __repr__(self) -> str:
        return f"DirectAnswers({len(self._ports)} ports)"

    def take(self, exchange: Exchange) -> None:
        """Count one exchange, if it says anything."""
        if is_of_ui(exchange):
            return
        answer = answer_of(exchange.facts)
        if answer is Answer.UNJUDGED:
            return
        port = exchange.facts.name.port
        window = entry(self._ports, port, lambda: CountWindow(2, window_s=self._window_s), limit=_PORTS)
        window.add(answer is Answer.GOOD, exchange.at.boot_ns)

    def good_behind(self, ui: RouteName, now_ns: int) -> int:
        """Return how many good answers the ports behind a user interface gave; 0 where they are not well.

        Every port but the interface's own stands behind it. They are well with five good answers, and four of
        five good.
        """
        counts = [window.at(now_ns) for port, window in self._ports.items() if port != ui.port]
        good = sum(each[1] for each in counts)
        judged = good + sum(each[0] for each in counts)
        return good if good >= _LEAST and good >= _SHARE * judged else 0
