"""Policies, for the tests of the command line."""

from attrs import frozen

import splitiot as si


@frozen
class OneStep(si.Policy):
    """Always one step here, where that is allowed."""

    cut: int = 1

    def decide(self, context):
        row = context.at_cut(self.cut)
        return si.Decision(row, "one step") if context.allows(row) else context.best()


@frozen
class Wanting(si.Policy):
    """Can't be made without an argument."""

    needed: int

    def decide(self, context):
        return context.best()


@frozen
class Battery(si.Policy):
    """All here, and says what it knows of the battery."""

    def decide(self, context):
        return si.Decision(context.local_row, f"battery {context.telemetry.get('battery')}")


ready = OneStep(2)
