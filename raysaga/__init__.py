"""Durable sagas for Ray: every business transaction ends done or undone.

The names below are the public ones; they are imported when first used, so that
reading a data folder does not wait for Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from raysaga.compiled import use_compiled

__version__ = "0.1.0"

use_compiled()

if TYPE_CHECKING:
    from raysaga.actors.errors import (
        CancelTooLateError as CancelTooLateError,
    )
    from raysaga.actors.errors import (
        EngineUnavailableError as EngineUnavailableError,
    )
    from raysaga.actors.errors import (
        IdempotencyConflictError as IdempotencyConflictError,
    )
    from raysaga.actors.errors import (
        OperatorRefusedError as OperatorRefusedError,
    )
    from raysaga.actors.errors import (
        OverloadedError as OverloadedError,
    )
    from raysaga.actors.errors import (
        ParticipantNotFoundError as ParticipantNotFoundError,
    )
    from raysaga.actors.errors import (
        ResultTimeoutError as ResultTimeoutError,
    )
    from raysaga.actors.errors import (
        SagaNotFoundError as SagaNotFoundError,
    )
    from raysaga.actors.participant import (
        CodeKind as CodeKind,
    )
    from raysaga.actors.participant import (
        Effects as Effects,
    )
    from raysaga.actors.participant import (
        Operation as Operation,
    )
    from raysaga.actors.participant import (
        Participant as Participant,
    )
    from raysaga.actors.participant import (
        Refusal as Refusal,
    )
    from raysaga.actors.participant import (
        TryLater as TryLater,
    )
    from raysaga.actors.participant import (
        View as View,
    )
    from raysaga.actors.provider import (
        Provider as Provider,
    )
    from raysaga.actors.provider import (
        ProviderAnswer as ProviderAnswer,
    )
    from raysaga.actors.provider import (
        ProviderOperation as ProviderOperation,
    )
    from raysaga.actors.provider import (
        ProviderStatus as ProviderStatus,
    )
    from raysaga.actors.settings import (
        EngineSettings as EngineSettings,
    )
    from raysaga.api.blocking import (
        connect_blocking as connect_blocking,
    )
    from raysaga.api.client import (
        SagaHandle as SagaHandle,
    )
    from raysaga.api.client import (
        Sagas as Sagas,
    )
    from raysaga.api.client import (
        connect as connect,
    )
    from raysaga.api.errors import (
        CancelledError as CancelledError,
    )
    from raysaga.api.errors import (
        InsufficientStockError as InsufficientStockError,
    )
    from raysaga.api.errors import (
        NotCompletedError as NotCompletedError,
    )
    from raysaga.api.errors import (
        ParkedError as ParkedError,
    )
    from raysaga.api.errors import (
        ParticipantNotServedError as ParticipantNotServedError,
    )
    from raysaga.api.errors import (
        PaymentDeclinedError as PaymentDeclinedError,
    )
    from raysaga.api.errors import (
        RolledBackError as RolledBackError,
    )
    from raysaga.api.errors import (
        ServiceUnavailableError as ServiceUnavailableError,
    )
    from raysaga.api.outcome import (
        Outcome as Outcome,
    )
    from raysaga.statemachines.calls import (
        StepCall as StepCall,
    )
    from raysaga.statemachines.definition import (
        CompensationPolicy as CompensationPolicy,
    )
    from raysaga.statemachines.definition import (
        Durability as Durability,
    )
    from raysaga.statemachines.definition import (
        SagaDefinition as SagaDefinition,
    )
    from raysaga.statemachines.definition import (
        Step as Step,
    )
    from raysaga.statemachines.definition import (
        StepKind as StepKind,
    )
    from raysaga.statemachines.errors import (
        DefinitionError as DefinitionError,
    )
    from raysaga.statemachines.errors import (
        SagaError as SagaError,
    )
    from raysaga.statemachines.errors import (
        ValidationError as ValidationError,
    )
    from raysaga.statemachines.retry import (
        RetryPolicy as RetryPolicy,
    )
    from raysaga.storage.errors import (
        DataFolderError as DataFolderError,
    )
    from raysaga.storage.errors import (
        NewerFormatError as NewerFormatError,
    )
    from raysaga.storage.errors import (
        RecordCorruptError as RecordCorruptError,
    )
    from raysaga.storage.errors import (
        StorageFullError as StorageFullError,
    )

_HOMES = {
    "actors.errors": (
        "CancelTooLateError",
        "EngineUnavailableError",
        "IdempotencyConflictError",
        "OperatorRefusedError",
        "OverloadedError",
        "ParticipantNotFoundError",
        "ResultTimeoutError",
        "SagaNotFoundError",
    ),
    "actors.participant": (
        "CodeKind",
        "Effects",
        "Operation",
        "Participant",
        "Refusal",
        "TryLater",
        "View",
    ),
    "actors.provider": ("Provider", "ProviderAnswer", "ProviderOperation", "ProviderStatus"),
    "actors.settings": ("EngineSettings",),
    "api.blocking": ("connect_blocking",),
    "api.client": ("SagaHandle", "Sagas", "connect"),
    "api.errors": (
        "CancelledError",
        "InsufficientStockError",
        "NotCompletedError",
        "ParkedError",
        "ParticipantNotServedError",
        "PaymentDeclinedError",
        "RolledBackError",
        "ServiceUnavailableError",
    ),
    "api.outcome": ("Outcome",),
    "statemachines.calls": ("StepCall",),
    "statemachines.definition": (
        "CompensationPolicy",
        "Durability",
        "SagaDefinition",
        "Step",
        "StepKind",
    ),
    "statemachines.errors": ("DefinitionError", "SagaError", "ValidationError"),
    "statemachines.retry": ("RetryPolicy",),
    "storage.errors": (
        "DataFolderError",
        "NewerFormatError",
        "RecordCorruptError",
        "StorageFullError",
    ),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'raysaga' has no attribute {name!r}")
    return getattr(import_module(f"raysaga.{home}"), name)
