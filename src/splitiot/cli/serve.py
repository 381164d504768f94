"""Be the edge: run tails of models and pipelines for devices, over HTTP.

Only this machine may connect, unless --host says otherwise; then a certificate and tokens are wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from splitiot.cli._arguments import TARGET, add_model_arguments, add_runtime_arguments, at_least, runtime_of
from splitiot.cli._console import Console
from splitiot.cli._errors import CommandFailed, UsageError
from splitiot.cli._format import milliseconds
from splitiot.cli._policy import POLICY, load_policy
from splitiot.cli._profiles import profile_target
from splitiot.cli._target import Target, load_target
from splitiot.cli._tokens import read_tokens
from splitiot.errors import ProfileError
from splitiot.limits import Limits

if TYPE_CHECKING:
    from splitiot.pipeline import Runtime
    from splitiot.topology import TierProfile

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``splitiot serve``."""
    parser.add_argument("targets", metavar="TARGET", nargs="+", help=TARGET)
    web = parser.add_argument_group("the server")
    web.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    web.add_argument("--port", type=at_least(0), default=8765, help="0 takes a free one (default: %(default)s)")
    web.add_argument("--token-file", metavar="FILE", help='who may connect: lines "NAME TOKEN"')
    web.add_argument("--cert", metavar="FILE", help="a certificate (PEM): HTTPS is spoken")
    web.add_argument("--key", metavar="FILE", help="its key, unless it stands in the same file")
    web.add_argument("--allow-plaintext", action="store_true", help="let other machines connect without encryption")
    web.add_argument("--allow-anonymous", action="store_true", help="let other machines connect without tokens")
    text = "a reverse proxy that is trusted to say whose requests it passes on (X-Forwarded-For); may be given again"
    web.add_argument("--proxy", metavar="ADDR", action="append", default=[], help=text)
    usual = Limits()
    text = "open connections; the limit of open files lowers it (default: %(default)s)"
    web.add_argument("--max-connections", type=at_least(1), metavar="N", default=usual.max_connections, help=text)
    text = "the same of one address; a --proxy may have all (default: %(default)s)"
    per_address = usual.max_connections_per_address
    web.add_argument("--max-per-address", type=at_least(1), metavar="N", default=per_address, help=text)
    text = "MiB of requests that are held at once; one name may have half of it (default: %(default)s)"
    web.add_argument("--max-held", type=at_least(1), metavar="MIB", default=usual.max_body_bytes // 2**20, help=text)
    text = "seconds to end in when told to, whatever hangs (default: %(default)g)"
    web.add_argument("--shutdown", type=at_least(1), metavar="S", default=int(usual.shutdown_s), help=text)
    parser.add_argument("--policy", metavar="NAME", help=f"plan here, for devices that follow: {POLICY}")
    parser.add_argument("--no-profile", action="store_true", help="don't measure at the start: devices learn it slower")
    add_model_arguments(parser)
    add_runtime_arguments(parser)
    parser.add_argument("--json", action="store_true", help='write one line {"url": ...} when it is ready')


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run ``splitiot serve`` until it is interrupted."""
    from splitiot.adapters.http._grace import Grace
    from splitiot.adapters.http._serve import serve_within
    from splitiot.edge import EdgeService

    _check_openness(arguments)
    tokens = None if arguments.token_file is None else read_tokens(arguments.token_file)
    tokens = getattr(arguments, "tokens", tokens)  # see _local_edge
    policy = None if arguments.policy is None else load_policy(arguments.policy)
    if policy is not None and arguments.no_profile:
        raise UsageError("--policy plans with profiles: leave --no-profile out")
    runtime = runtime_of(arguments)
    targets = _load_targets(arguments, runtime)
    console.need_rich()
    ready = False
    profiles = [] if arguments.no_profile else _measure(targets, runtime, console, needed=policy is not None)
    measured = {p.digest: p.whole_s for p in profiles}

    def announce(port: int) -> None:
        nonlocal ready
        ready = True
        _announce(arguments, port, targets, measured, console)

    pipelines = [t.pipeline for t in targets]
    limits = _limits(arguments)
    with (
        console.log("splitiot", "uvicorn.error"),
        Grace(limits.shutdown_s) as grace,
        EdgeService(pipelines, runtime=runtime, profiles=profiles, policy=policy, limits=limits) as service,
    ):
        try:
            with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C and SIGTERM are the proper end
                serve_within(
                    grace,
                    service,
                    host=arguments.host,
                    port=arguments.port,
                    tokens=tokens,
                    certfile=arguments.cert,
                    keyfile=arguments.key,
                    allow_plaintext=arguments.allow_plaintext,
                    allow_anonymous=arguments.allow_anonymous,
                    proxies=arguments.proxy,
                    limits=limits,
                    ready=announce,
                )
        except SystemExit:  # uvicorn's way to say that it can't listen; its reason was logged
            raise CommandFailed(f"can't listen on {arguments.host} port {arguments.port}") from None
        if not ready:
            return 0
        counters = service.counters
    console.note(
        f"served {counters.requests} requests: {counters.failures} failed, {counters.duplicates} duplicates, "
        f"{counters.busy} sent away, {counters.bad_frames} bad frames"
    )
    return 0


def _load_targets(arguments: argparse.Namespace, runtime: Runtime) -> list[Target]:
    targets = [
        load_target(text, signature=arguments.signature, sink=arguments.sink, runtime=runtime)
        for text in arguments.targets
    ]
    if len({t.pipeline.digest for t in targets}) < len(targets):
        raise UsageError("two of the targets are the same pipeline: devices could not tell them apart")
    return targets


def _limits(arguments: argparse.Namespace) -> Limits:
    return Limits(
        max_connections=arguments.max_connections,
        max_connections_per_address=arguments.max_per_address,
        max_body_bytes=arguments.max_held * 2**20,
        max_body_bytes_per_name=max(1, arguments.max_held * 2**19),
        shutdown_s=arguments.shutdown,
    )


def _measure(targets: Sequence[Target], runtime: Runtime, console: Console, *, needed: bool) -> list[TierProfile]:
    """Measure what can be measured here."""
    profiles = []
    for target in targets:
        try:
            profiles.append(profile_target(target, runtime, console, tier="edge"))
        except ProfileError as error:
            if needed:
                raise
            console.note(f"{target.name}: {error}. Devices learn it from its answers")
    return profiles


def _check_openness(arguments: argparse.Namespace) -> None:
    """Say in the command line's words what the adapter would refuse, and look at the files before it does."""
    from splitiot.adapters.http._address import is_loopback

    for path in (arguments.cert, arguments.key):
        if path is not None and not Path(path).is_file():
            raise UsageError(f"there is no file {path}")
    if arguments.key is not None and arguments.cert is None:
        raise UsageError("--key needs --cert")
    for address in arguments.proxy:
        try:
            ipaddress.ip_network(address)
        except ValueError as error:
            raise UsageError(f"--proxy {address}: {error}") from None
    if is_loopback(arguments.host):
        return
    if arguments.cert is None and not arguments.allow_plaintext:
        raise UsageError(
            f"{arguments.host} is open to other machines without encryption: give --cert and --key, or "
            "--allow-plaintext in a network that you trust"
        )
    if arguments.token_file is None and not arguments.allow_anonymous:
        raise UsageError(f"{arguments.host} is open to other machines: give --token-file, or --allow-anonymous")


def _announce(
    arguments: argparse.Namespace, port: int, targets: list[Target], measured: dict[str, float], console: Console
) -> None:
    host = arguments.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    url = f"{'http' if arguments.cert is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"
    if (announce := getattr(arguments, "announce", None)) is not None:  # see _local_edge
        announce(url)
        return
    pipelines = [
        {"target": t.text, "digest": t.pipeline.digest, "n": t.pipeline.n, "whole_s": measured.get(t.pipeline.digest)}
        for t in targets
    ]
    if console.json:
        console.data({"url": url, "pipelines": pipelines}, line=True)
        return
    console.print(f"edge ready at {url}", style="bold green")
    columns = {"target": "left end", "steps": "right", "whole, ms": "right", "digest": "left"}
    rows = [
        (t.text, str(t.pipeline.n), milliseconds(measured.get(t.pipeline.digest)), t.pipeline.digest[:12])
        for t in targets
    ]
    console.print("", console.table(columns, rows), "")
    console.print(f"on the device: splitiot run {targets[0].text} --edge {url}   (Ctrl-C ends this)")
