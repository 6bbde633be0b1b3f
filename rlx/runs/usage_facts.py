"""Speed and memory in the live panel."""

from __future__ import annotations

from collections.abc import Mapping

from rlx.runs.tracking import Metrics


def usage_facts(record: Metrics) -> Mapping[str, str]:
    """Names and values of the ``perf/`` and ``memory/`` metrics of a record; empty if it has none.

    Example:
        ``{"rollout": "1,250 tokens/s", "training": "3,800 tokens/s, 41.2% MFU", "memory": "17.3 GiB"}``
    """
    facts = {}
    if "perf/rollout_tokens_per_s" in record:
        facts["rollout"] = f"{record['perf/rollout_tokens_per_s']:,.0f} tokens/s"
    if "perf/train_tokens_per_s" in record:
        utilisation = f", {record['perf/mfu']:.1%} MFU" if "perf/mfu" in record else ""
        facts["training"] = f"{record['perf/train_tokens_per_s']:,.0f} tokens/s{utilisation}"
    if "memory/peak_gib" in record:
        facts["memory"] = f"{record['memory/peak_gib']:.1f} GiB"
    return facts
