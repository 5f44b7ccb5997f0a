"""Faults of a call to a provider. Each says one thing only: what the gateway must do about the attempt.

UpstreamError
  + UpstreamUnreachableError  no connection, or it ended before any answer: nothing was used
  + UpstreamTimeoutError      no answer in time: what was used is not known
  + UpstreamTruncatedError    the answer broke off
  + UpstreamGarbageError      the answer is not what its protocol says, or is over a limit
  + SecretUnavailableError    the provider's credential could not be read: nothing was sent
"""

from __future__ import annotations

from schemas.errors import QuaestorError


class UpstreamError(QuaestorError):
    """A provider did not answer as asked; the message never holds caller content or a credential."""


class UpstreamUnreachableError(UpstreamError):
    """The provider could not be reached."""


class UpstreamTimeoutError(UpstreamError):
    """The provider did not answer in time."""


class UpstreamTruncatedError(UpstreamError):
    """The provider's answer broke off."""


class UpstreamGarbageError(UpstreamError):
    """The provider's answer could not be read."""


class SecretUnavailableError(UpstreamError):
    """The provider's credential could not be read."""
