"""For the tests of your own sagas: plays them without Ray, in virtual time, with faults."""

from raysaga.simulation.rehearsal import Rehearsal

__all__ = ["Rehearsal"]
