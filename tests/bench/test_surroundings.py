"""What a line of results tells of where it was measured."""

from __future__ import annotations

from raysaga.bench.surroundings import without_passwords


def test_a_command_is_noted_without_the_passwords_of_brokers() -> None:
    told = "raysaga bench brokers --transport=amqp://ann:s%40c@mq/x --transport kafka://bob:p:w@k:1"
    shown = without_passwords(told)
    assert shown == (
        "raysaga bench brokers --transport=amqp://ann:***@mq/x --transport kafka://bob:***@k:1"
    )
    plain = "raysaga bench --in-flight 1 --engine {}"
    assert without_passwords(plain) == plain
