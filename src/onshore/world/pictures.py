"""Pictures of rollouts."""


def draw_pictures(request, towns):  # type: ignore
    raise NotImplementedError
