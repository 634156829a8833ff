"""`optc --install-completion`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ..errors import OutputError, SpecError
from .console import PLAINLY, Voice

if TYPE_CHECKING:
    from cyclopts import App


def completion(app: App) -> Callable[..., int]:
    """The command that lets a shell complete the commands of `app`."""

    def install_completion(
        *, shell: Literal["bash", "zsh", "fish", "powershell"] | None = None, voice: Voice = PLAINLY
    ) -> int:
        """Let the shell complete commands and options, from its next start on.

        Parameters
        ----------
        shell
            The shell to do it for; the one that runs this unless given.

        Examples
        --------
            optc --install-completion
            optc --install-completion --shell zsh
        """
        from cyclopts.completion.detect import ShellDetectionError, detect_shell

        try:
            chosen = shell or detect_shell()
        except ShellDetectionError:
            raise SpecError(
                "cannot tell which shell this is; name it with --shell bash, zsh, fish or powershell"
            ) from None
        try:
            path = app.install_completion(shell=chosen)
        except OSError as error:
            raise OutputError(f"cannot write {error.filename}: {os.strerror(error.errno or 0)}") from error
        voice.say({"wrote": str(path)}, f"wrote {path}; start {chosen} anew to use it")
        return 0

    return install_completion
