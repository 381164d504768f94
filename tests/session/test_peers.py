"""The edge's two tables, of devices and of answers, beside models of them that are as simple as can be."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from splitiot.limits import Limits
from splitiot.session._answers import Answer, Answers
from splitiot.session._peers import Held, Owner, Peers
from tests.session.support import boot_of

NAMES = st.sampled_from("abc")
BOOTS = st.integers(0, 5).map(boot_of)
MOST, TTL_S = 6, 10.0


class PeersBesideTheirModel(RuleBasedStateMachine):
    """The model: who was heard of when, in a list; all that is wanted of the table can be read off it."""

    def __init__(self) -> None:
        super().__init__()
        self.peers = Peers(Limits(max_peers=MOST, max_peers_per_name=MOST // 2, ttl_s=TTL_S))
        self.heard: dict[tuple[str, bytes], float] = {}
        self.holding: set[tuple[str, bytes]] = set()
        self.forgotten: set[object] = set()
        self.now_s = 0.0

    def _silent(self) -> set[tuple[str, bytes]]:
        return {whose for whose, heard_s in self.heard.items() if self.now_s - heard_s > TTL_S}

    @rule(seconds=st.floats(0.0, 6.0))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(name=NAMES, boot=BOOTS, holds=st.booleans())
    def request(self, name: str, boot: bytes, holds: bool) -> None:
        gone = self._silent()
        peer, forgotten = self.peers.at(name, boot, self.now_s)
        assert {effect.owner[:2] for effect in forgotten} == gone & self.holding
        assert len(forgotten) == len({effect.owner for effect in forgotten})
        assert not {effect.owner for effect in forgotten} & self.forgotten  # one that comes back is another one
        self.forgotten |= {effect.owner for effect in forgotten}
        for whose in gone:
            del self.heard[whose]
        self.holding -= gone
        names = Counter(each for each, _ in self.heard)
        known = (name, boot) in self.heard
        assert (peer is not None) == (known or (len(self.heard) < MOST and names[name] < MOST // 2))
        if peer is None:
            return
        self.heard[name, boot] = self.now_s
        assert bool(peer.held) == ((name, boot) in self.holding)
        if holds:
            peer.held["digest"] = Held(0)
            self.holding.add((name, boot))

    @rule(name=NAMES, boot=BOOTS)
    def probe(self, name: str, boot: bytes) -> None:
        peer = self.peers.heard(name, boot, self.now_s)
        assert (peer is not None) == ((name, boot) in self.heard)
        if peer is not None:
            self.heard[name, boot] = self.now_s

    @invariant()
    def the_same_are_known(self) -> None:
        assert len(self.peers) == len(self.heard) <= MOST
        for name in "abc":
            for boot in map(boot_of, range(6)):
                assert (self.peers.get(name, boot) is not None) == ((name, boot) in self.heard)
        assert self.peers._boots.keys() == {name for name, _ in self.heard}, "nothing is left of those who are gone"


TestPeers = PeersBesideTheirModel.TestCase


ADDED = st.lists(st.tuples(NAMES, st.integers(0, 2).map(boot_of), st.integers(0, 70)), max_size=80)


@given(ADDED, st.integers(1, 8))
def test_answers_are_shared_fairly(added: list[tuple[str, bytes, int]], most: int) -> None:
    """Who holds most gives way; among equals any may, so that is not compared."""
    answers, shares = Answers(most, most * 10), Counter[str]()
    kept: dict[tuple[str, bytes, int], int] = {}
    for number, (name, boot, nbytes) in enumerate(added):
        key, before = (name, boot, number), dict(kept)
        dropped = answers.add(key, Answer(number, bytes(nbytes)))
        units = max(1, -(-nbytes // 10))
        if units > most:
            assert dropped == [key]
            continue
        before[key] = kept[key] = units
        for gone in dropped:
            names, boots = Counter[str](), Counter[tuple[str, bytes]]()
            for (who, whose, _), size in before.items():
                names[who] += size
                boots[who, whose] += size
            assert sum(names.values()) > most, "nothing is dropped while there is room"
            assert names[gone[0]] == max(names.values())
            assert boots[gone[:2]] == max(size for (who, _), size in boots.items() if who == gone[0])
            assert gone[2] == min(each[2] for each in before if each[:2] == gone[:2])
            del before[gone], kept[gone]
        assert sum(kept.values()) <= most
        assert len(answers) == len(kept)
        assert answers.nbytes <= 10 * most
    for each in kept:
        answer = answers.get(each)
        assert answer is not None
        assert answer.fingerprint == each[2]
    assert answers.get(("a", boot_of(0), len(added))) is None
    shares.update(each[0] for each in kept)
    assert answers._names._units.keys() == shares.keys() == answers._boots.keys()


@given(st.integers(1, 6), st.integers(1, 300))
def test_a_flood_takes_nothing_from_those_within_their_share(others: int, flood: int) -> None:
    answers = Answers(64, 64 * 1000)
    share = 64 // (others + 1)
    for other in range(others):
        for number in range(share):
            assert answers.add((f"other {other}", boot_of(1), number), Answer(number, b"x")) == []
    for number in range(flood):
        answers.add(("flood", boot_of(number % 7), number), Answer(number, b"x"))
    for other in range(others):
        for number in range(share):
            assert answers.get((f"other {other}", boot_of(1), number)) is not None


def test_an_owner_keeps_its_boot_to_itself() -> None:
    boot = bytes(range(16))
    owner = Owner("camera", boot, 3)
    for words in (repr(owner), str(owner), f"{owner!r}"):
        assert words == "camera (boot 000102)"
