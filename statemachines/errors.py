"""The root of all errors, and those that need neither a journal nor a host.

Every error carries a stable `code` in capitals, and says with `retryable`
whether the very same request can succeed later. Facts go to the constructor
and on to `super().__init__`, so that an error survives pickling across Ray;
the sentence is built in `__str__`. A code is never reworded; a sentence may be.
"""

from __future__ import annotations

from typing import ClassVar


class SagaError(Exception):
    """What is the caller's or the world's fault, with a code to act on.

    Attributes:
        code: Stable name of the kind of error, for programs.
        retryable: Whether the same request can succeed later, unchanged.
    """

    code: ClassVar[str] = "SAGA_ERROR"
    retryable: ClassVar[bool] = False


class ValidationError(SagaError):
    """The input breaks a rule that no retry can mend.

    Raised before anything is written.

    Attributes:
        message: What is wrong, in one sentence, without the offending value.
        field: Path of the field at fault, such as `items[0].quantity`.
    """

    code = "VALIDATION"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message, field)
        self.message = message
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class DefinitionError(SagaError):
    """A saga definition that could leave an order neither done nor undone.

    Raised when a definition is made, before any saga uses it.

    Attributes:
        definition: Name of the definition.
        step: Name of the step at fault, if it is one step.
        message: The rule that it breaks.
    """

    code = "DEFINITION_INVALID"

    def __init__(self, definition: str, step: str | None, message: str) -> None:
        super().__init__(definition, step, message)
        self.definition = definition
        self.step = step
        self.message = message

    def __str__(self) -> str:
        where = f"step {self.step!r}: " if self.step else ""
        return f"definition {self.definition!r}: {where}{self.message}"
