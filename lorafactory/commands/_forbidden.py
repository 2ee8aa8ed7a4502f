"""What is forbidden with a picture, for `revoke` and `join`."""

from __future__ import annotations

from lorafactory.store import Store


def kin(store: Store, hashes: list[str]) -> list[str]:
    """These files, others that are the same picture by pixels or conversion, then all that came of any of these."""
    forms = dict.fromkeys(hashes)
    for sha in (queue := list(forms)):
        looks = {row["pixels"] for row in store.ask("looks", sha256=sha) if row["pixels"]}
        same = [row["sha256"] for pixels in looks for row in store.ask("pixels", pixels=pixels)]
        near = (*store.parents(sha), *store.children(sha))
        same += [one.sha256 for one in near if (one.depth, one.how) == (1, "png")]
        queue += (new := [other for other in dict.fromkeys(same) if other not in forms])
        forms |= dict.fromkeys(new)
    offspring = [row["sha256"] for sha in forms for row in store.ask("offspring", sha256=sha)]
    return list(dict.fromkeys([*forms, *offspring]))
