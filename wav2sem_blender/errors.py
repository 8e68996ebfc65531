# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user can mend, apart from what we have to mend. Standard library only."""

from __future__ import annotations


class UserError(ValueError):
    """A fault that the user can mend: the message names the thing and the remedy.

    It is raised where the cause is known and shown where the user looks. Every other exception is ours.

    Attributes:
        template: the English sentence with `{name}` where a value goes; translations have it as their key.
        values: what goes into it.
    """

    def __init__(self, template: str, **values: object) -> None:
        super().__init__(template.format(**values))
        self.template = template
        self.values = values
