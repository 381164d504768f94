"""Measure round trip and bandwidths to an edge, up and down apart.

Nothing is executed there: probes of several sizes go up, and bring padding back. What ends in a Link can be pasted
into Python, and what ends in options behind `splitiot plan`.
"""

from __future__ import annotations

import argparse

from splitiot.cli._arguments import at_least, positive
from splitiot.cli._console import Console
from splitiot.cli._edge import add_edge_arguments, reaching
from splitiot.cli._format import milliseconds, rate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot link``."""
    parser.add_argument("url", metavar="URL", help="the edge's address, such as https://edge:8443")
    parser.add_argument("--count", type=at_least(1), default=10, metavar="N", help="probes of each size (default: 10)")
    parser.add_argument("--timeout", type=positive, default=10.0, metavar="S", help="for each probe (default: 10)")
    add_edge_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON document")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot link``."""
    from splitiot.link_probe import probe_link

    console.need_rich()
    with reaching(arguments, arguments.url) as transport, console.progress("measuring the link") as report:
        probe = probe_link(transport, count=arguments.count, timeout_s=arguments.timeout, progress=report)
    link = probe.link
    if console.json:
        console.data(
            {
                "url": arguments.url,
                "rtt_s": link.rtt_s,
                "rtt_min_s": probe.rtt_min_s,
                "up_bytes_per_s": link.up_bytes_per_s,
                "down_bytes_per_s": link.down_bytes_per_s,
                "up_clear": probe.up_clear,
                "down_clear": probe.down_clear,
                "up_probe_bytes": probe.up_bytes,
                "down_probe_bytes": probe.down_bytes,
                "rtts_s": list(probe.rtts_s),
            }
        )
        return 0
    round_trip = f"{milliseconds(link.rtt_s)} ms median, {milliseconds(probe.rtt_min_s)} ms at least"
    rows = [
        ["round trip", round_trip, f"{arguments.count} probes without contents"],
        ["up", _rate(link.up_bytes_per_s, probe.up_clear), f"{probe.up_bytes:,} bytes a probe"],
        ["down", _rate(link.down_bytes_per_s, probe.down_clear), f"{probe.down_bytes:,} bytes a probe"],
    ]
    console.print(console.table({arguments.url: "left", "": "right", " ": "left"}, rows))
    up, down = link.up_bytes_per_s, link.down_bytes_per_s
    console.print(
        "",
        f"Link(rtt_s={link.rtt_s:.4g}, up_bytes_per_s={up:.4g}, down_bytes_per_s={down:.4g})",
        f"splitiot plan TARGET --rtt {link.rtt_s * 1e3:.4g} --up {up / 125e3:.4g} --down {down / 125e3:.4g}",
    )
    return 0


def _rate(bytes_per_s: float, clear: bool) -> str:
    return rate(bytes_per_s) if clear else f"over {rate(bytes_per_s)}"
