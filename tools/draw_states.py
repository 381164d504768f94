"""Draw the states of a request, docs/images/states.svg, from splitiot.session.TRANSITIONS.

$ python tools/draw_states.py
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from splitiot.session import TRANSITIONS, State

OUT = Path(__file__).parents[1] / "docs" / "images" / "states.svg"

PLACES = {State.WAITING: (130, 215), State.PAUSED: (430, 75), State.LOCAL: (430, 355), State.ENDED: (740, 215)}
WORDS = {
    State.WAITING: "the edge has it",
    State.PAUSED: "will be sent again",
    State.LOCAL: "finished on the device",
    State.ENDED: "one outcome",
}
# from, over and to where an arrow goes, and where its label stands
PATHS = {
    (State.WAITING, State.WAITING): ("M90,190 C40,90 180,90 150,188", (115, 100), "middle"),
    (State.WAITING, State.PAUSED): ("M165,190 C220,110 280,80 345,75", (290, 70), "end"),
    (State.PAUSED, State.WAITING): ("M345,92 C300,108 240,140 203,187", (300, 145), "start"),
    (State.WAITING, State.LOCAL): ("M150,242 C200,330 270,355 345,355", (172, 330), "end"),
    (State.WAITING, State.ENDED): ("M216,215 L654,215", (435, 205), "middle"),
    (State.PAUSED, State.ENDED): ("M515,75 C600,80 660,130 715,188", (640, 95), "start"),
    (State.LOCAL, State.ENDED): ("M515,355 C600,350 660,300 715,242", (655, 335), "start"),
}


def drawn() -> str:
    edges: dict[tuple[State, State], list[str]] = {}
    for (before, event), after in TRANSITIONS.items():
        for state in after:
            edges.setdefault((before, state), []).append(event.value)
    if edges.keys() != PATHS.keys():
        raise SystemExit(f"say in PATHS where these arrows go: {sorted(edges.keys() ^ PATHS.keys())}")
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 430" font-family="sans-serif" font-size="14">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#3f51b5"/></marker></defs>',
        '<rect width="860" height="430" fill="white"/>',
    ]
    for pair, events in edges.items():
        path, (x, y), anchor = PATHS[pair]
        lines.append(f'<path d="{path}" fill="none" stroke="#3f51b5" stroke-width="1.5" marker-end="url(#tip)"/>')
        rows = [", ".join(events[i : i + 3]) for i in range(0, len(events), 3)]
        for number, row in enumerate(reversed(rows)):
            lines.append(f'<text x="{x}" y="{y - 17 * number}" text-anchor="{anchor}" fill="#333">{escape(row)}</text>')
    for state, (x, y) in PLACES.items():
        lines.append(
            f'<rect x="{x - 85}" y="{y - 26}" width="170" height="52" rx="10" fill="#e8eaf6" stroke="#3f51b5"/>'
        )
        lines.append(f'<text x="{x}" y="{y - 3}" text-anchor="middle" font-weight="bold">{escape(state.value)}</text>')
        lines.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle" font-size="12">{escape(WORDS[state])}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    OUT.write_text(drawn())
