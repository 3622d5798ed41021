"""What a shell makes of a variable that is not set."""

from typing import Any

from typer.core import TyperCommand

from flowcache.errors import InputError, Problem


class Stated(TyperCommand):
    """A command whose options and arguments say something, where they are given: InputError for a blank one. Of a path
    it would be the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        names = {
            param.name: param.opts[0] if param.param_type_name == "option" else param.name for param in self.params
        }
        blank = [
            Problem(names.get(name) or name, "", "is empty; accepted: a value, or nothing at all")
            for name, value in given.items()
            if any(isinstance(one, str) and not one.strip() for one in _each(value))
        ]
        if blank and not ctx.resilient_parsing:
            raise InputError(blank)
        return super().parse_args(ctx, args)


def _each(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
