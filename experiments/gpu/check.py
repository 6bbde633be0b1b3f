"""Check rlx on one GPU: each phase is a process with a time limit, and all results go to $OUT/all.json.

python3 experiments/gpu/check.py all       every phase; --small makes all shapes tiny, to try it on a CPU
python3 experiments/gpu/check.py PHASE     one phase, in this process
PHASES=resume,trl BUDGET=300               only these phases, and the time limit for all of them (seconds)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("RLX_ROOT", Path.cwd()))
OUT = Path(os.environ.get("OUT", "/tmp/gpu/out"))
OUT.mkdir(parents=True, exist_ok=True)
WORK = Path("/tmp/rlx_check")
WORK.mkdir(exist_ok=True)
SMALL = "--small" in sys.argv
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
sys.path.insert(0, str(ROOT))
PHASES = {
    "env": 20,
    "resume": 110,
    "lora": 35,
    "unlearn": 70,
    "trl": 110,
    "decode": 60,
    "golden": 40,
    "tiny": 50,
    "demo": 140,
    "update": 75,
    "head": 45,
    "graph": 45,
    "layer": 60,
}
"""Time limit of each phase in seconds, the most valuable phase first."""


def save(name, content):
    """Save a phase's results to one file, so that an interrupted run keeps them; at most eight files are returned."""
    path = OUT / "all.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[name] = content
    temporary = WORK / f"all.{os.getpid()}"
    temporary.write_text(json.dumps(results, indent=1))
    shutil.move(temporary, path)
    print(name, json.dumps(content)[:600], flush=True)


def rlx(*args, limit=60, kill_at=None):
    """Run an rlx command and return (seconds, exit code, last lines); send SIGKILL once ``kill_at`` returns True."""
    start = time.time()
    with open(WORK / "o", "w") as out:
        p = subprocess.Popen([sys.executable, "-m", "rlx.cli", *args], stdout=out, stderr=out, cwd=WORK)
        while p.poll() is None and time.time() - start < limit:
            if kill_at and kill_at():
                p.send_signal(signal.SIGKILL)
            time.sleep(0.05)
        if p.poll() is None:
            p.kill()
        p.wait()
    return round(time.time() - start, 1), p.returncode, (WORK / "o").read_text().strip().splitlines()[-3:]


def metrics(folder):
    """The metric records of the only run in a folder of runs."""
    return [json.loads(line) for line in next(Path(folder).glob("*/metrics.jsonl")).read_text().splitlines()]


def env():
    """Versions, and the card's measured rates of matrix products and memory copies."""
    import torch

    results = {"torch": torch.__version__, "cuda": torch.cuda.is_available()}
    if torch.cuda.is_available():
        p = torch.cuda.get_device_properties(0)
        results |= {"card": p.name, "GiB": p.total_memory / 2**30}
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        c = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        d = torch.empty_like(c)
        results["bf16 TFLOP/s"] = 2 * 8192**3 / timed(lambda: a @ b) / 1e12
        results["TB/s"] = 2 * (1 << 30) / timed(lambda: d.copy_(c)) / 1e12
        for f in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = f
            x = torch.randn(4096, 4096, device="cuda")
            results[f"fp32 TFLOP/s tf32={f}"] = 2 * 4096**3 / timed(lambda: x @ x) / 1e12
    save("env", results)


def timed(fn, n=8):
    """Median seconds of a call, measured by CUDA events if there is a GPU."""
    import torch

    if not torch.cuda.is_available():
        t = time.perf_counter()
        fn()
        return time.perf_counter() - t
    for _ in range(2):
        fn()
    torch.cuda.synchronize()
    ts = []
    for _ in range(n):
        s, e = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        s.record()
        fn()
        e.record()
        torch.cuda.synchronize()
        ts.append(s.elapsed_time(e) / 1e3)
    return statistics.median(ts)


TINY = ["train", "--algo", "dgpo", "--set", "tracker.mlflow=false", "--set", "rollout.engine=hf"]


def tiny():
    """The embedded task in float32 and in the default dtype, compared with a CPU's float32 records."""
    results = {}
    for name, sets in (
        ("float32", ["--set", "model.precision=float32", "--set", "evaluation.every=0", "--steps", "6"]),
        ("auto", ["--set", "evaluation.every=30", "--set", "evaluation.limit=200", "--steps", "3" if SMALL else "30"]),
    ):
        runs_dir = WORK / f"tiny_{name}"
        shutil.rmtree(runs_dir, ignore_errors=True)
        results[name] = rlx(*TINY, *sets, "--runs-dir", str(runs_dir), limit=45)
        m = metrics(runs_dir)
        results[name + " last"] = {
            k: m[-1].get(k)
            for k in ("train/reward", "eval/sampled_accuracy", "time/rollout", "time/update", "time/step")
        }
        results[name + " first"] = {
            k: m[min(1, len(m) - 1)].get(k) for k in ("train/reward", "optim/loss", "optim/grad_norm", "policy/entropy")
        }
        if name == "auto":
            results["eval before"] = m[0].get("eval/sampled_accuracy")
        save("tiny", results)
    ref = HERE / "cpu_float32.jsonl"
    if ref.exists():
        gpu, cpu = metrics(WORK / "tiny_float32"), [json.loads(line) for line in ref.read_text().splitlines()]
        results["against the CPU, float32"] = [
            {k: (a[k], b[k]) for k in ("train/reward", "optim/grad_norm", "policy/entropy", "train/tokens")}
            for a, b in list(zip(gpu, cpu, strict=False))[1:4]
        ]
    save("tiny", results)


def demo():
    """The README's first run within its time limit, then rlx eval of the trained model."""
    runs_dir = WORK / "demo"
    shutil.rmtree(runs_dir, ignore_errors=True)
    results = {"run": rlx(*TINY, *(["--steps", "2"] if SMALL else []), "--runs-dir", str(runs_dir), limit=75)}
    results["accuracy by step"] = [
        (m["step"], m["eval/sampled_accuracy"]) for m in metrics(runs_dir) if "eval/sampled_accuracy" in m
    ]
    save("demo", results)
    run = next(runs_dir.glob("*")).name
    results["eval"] = rlx(
        "eval", str(runs_dir / run), "--bench", "arithmetic", "--limit", "64", "--runs-dir", str(runs_dir), limit=40
    )
    save("demo", results)


def resume():
    """Kill a run after a checkpoint, run the same command again, and compare with an uninterrupted run."""
    runs_dir = WORK / "resume"
    shutil.rmtree(runs_dir, ignore_errors=True)
    args = [
        *TINY,
        "--set",
        "evaluation.every=0",
        "--set",
        "checkpoint.every=2",
        "--steps",
        "8",
        "--runs-dir",
        str(runs_dir),
    ]
    first = rlx(*args, limit=40, kill_at=lambda: any(runs_dir.glob("*/checkpoints/step_000004/state.json")))
    results = {"killed": first, "again": rlx(*args, limit=30)}
    uninterrupted_dir = WORK / "uninterrupted"
    shutil.rmtree(uninterrupted_dir, ignore_errors=True)
    args[-1] = str(uninterrupted_dir)
    results["uninterrupted"] = rlx(*args, limit=30)
    if results["again"][1] == 0:
        a, b = metrics(runs_dir), metrics(uninterrupted_dir)
        results["same figures"] = [x.get("optim/loss") == y.get("optim/loss") for x, y in zip(a, b, strict=False)][1:]
        import hashlib

        results["same weights"] = (
            len(
                {
                    hashlib.sha256(next(f.glob("*/model/model.safetensors")).read_bytes()).hexdigest()
                    for f in (runs_dir, uninterrupted_dir)
                }
            )
            == 1
        )
    save("resume", results)


def golden():
    """The tests of golden values and of cases worked by hand, with CUDA as the default device."""
    plugin = WORK / "cuda_default.py"
    plugin.write_text("import torch\nif torch.cuda.is_available(): torch.set_default_device('cuda')\n")
    env_ = os.environ | {
        "PYTHONPATH": f"{WORK}:{os.environ['PYTHONPATH']}",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
    }
    tests = [
        "tests/methods/policy/test_golden_policy.py",
        "tests/methods/unlearning/test_golden_unlearning.py",
        "tests/methods/policy/test_by_hand.py",
        "tests/methods/unlearning/test_by_hand.py",
    ]
    p = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x" if False else "-q",
            "-p",
            "cuda_default",
            "-p",
            "no:cacheprovider",
            "--no-header",
            "-rf",
            *tests,
        ],
        cwd=ROOT,
        env=env_,
        capture_output=True,
        text=True,
    )
    save("golden", {"rc": p.returncode, "tail": p.stdout.strip().splitlines()[-25:]})


def config(size="1.5b"):
    """The configuration of Qwen2.5 with this size."""
    from transformers import Qwen2Config

    if SMALL:
        return Qwen2Config(
            vocab_size=4096,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            use_sliding_window=False,
            tie_word_embeddings=False,
        )
    sizes = {"1.5b": (1536, 8960, 28, 12, False), "0.5b": (896, 4864, 24, 14, True)}
    hidden, inner, layers, heads, tied = sizes[size]
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        use_sliding_window=False,
        tie_word_embeddings=tied,
    )


def random_model(size="1.5b", dtype=None):
    """A causal language model of this size with random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config(size), attn_implementation="sdpa", dtype=dtype or torch.float32)


def update():
    """Seconds and peak memory of a micro-batch at DeepSeek-R1-Distill-Qwen-1.5B's shapes, and a profile."""
    import torch

    from rlx.engine.batch import Batch
    from rlx.engine.step import Engine
    from rlx.numerics.collate import TokenSequence
    from rlx.numerics.output_layer.response_reader import logprob_reader
    from rlx.numerics.terms import Counts
    from rlx.registry import Method, get
    from rlx.rl.objective import MiniBatch, PolicyObjective
    from rlx.specs.train import Algorithm, Model, Optim

    results, gpu = {}, torch.cuda.is_available()
    prompt, response = (20, 44) if SMALL else (200, 825)
    lm = random_model()
    engine = Engine(lm, Model(gradient_checkpointing=False), Optim(lr=1e-6), 100, 16384)
    component = get("policy", "dgpo")
    method = Method(component, component.hyper())

    def run(tokens, ckpt, updates=2):
        if ckpt:
            lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            lm.gradient_checkpointing_disable()
        engine.max_tokens = tokens
        count = 2 * max(1, tokens // (prompt + response))
        seqs = [
            TokenSequence(tuple(range(3, 3 + prompt)), tuple((7 * k + j) % 4000 + 3 for k in range(response)))
            for j in range(count)
        ]
        mini = MiniBatch(
            seqs,
            torch.ones(count),
            [torch.full((response,), -8.0)] * count,
            None,
            None,
            Counts(count * response, count, response),
        )
        batch = Batch(
            seqs,
            logprob_reader(1.0),
            PolicyObjective(method, Algorithm(), mini),
            {"policy": mini.counts, "kl": mini.counts},
        )
        if gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()
        durations = []
        for _ in range(updates):
            t = time.perf_counter()
            u = engine.update(batch)
            if gpu:
                torch.cuda.synchronize()
            durations.append(time.perf_counter() - t)
        return {
            "s a micro-batch": min(durations) / 2,
            "tokens/s": count * (prompt + response) / min(durations),
            "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if gpu else 0,
            "reserved GiB": torch.cuda.max_memory_reserved() / 2**30 if gpu else 0,
            "loss": u.loss,
            "norm": u.grad_norm,
        }

    for tokens, ckpt in ((8192, True), (16384, True), (32768, True), (4096, False), (8192, False), (16384, False)):
        try:
            results[f"{tokens} ckpt={ckpt}"] = run(tokens if not SMALL else tokens // 64, ckpt)
        except torch.OutOfMemoryError as error:
            results[f"{tokens} ckpt={ckpt}"] = "OOM: " + str(error)[:120]
            engine.optimizer.zero_grad()
        save("update", results)
    lm.gradient_checkpointing_disable()
    acts = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if gpu else [])
    with torch.profiler.profile(activities=acts) as p:
        run(8192 if not SMALL else 128, False, 1)
    rows = sorted(p.key_averages(), key=lambda e: -(e.self_device_time_total if gpu else e.self_cpu_time_total))[:25]
    results["profile, ms of 2 micro-batches and Adam"] = {
        r.key[:80]: [round((r.self_device_time_total if gpu else r.self_cpu_time_total) / 1e3, 2), r.count]
        for r in rows
    }
    save("update", results)


def decode():
    """Milliseconds per decode step of the transformers sampler, by context, prompt lengths and trainable weights."""
    import torch

    from rlx.rollout.hf import HFSampler
    from rlx.rollout.sampler import Sampling

    results = {}
    lm = random_model()
    rows = 32 if not SMALL else 2

    def autocast():
        return torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16)

    for name, lengths, frozen in (
        ("200 even", [200] * rows, False),
        ("200 mixed", [200 - i for i in range(rows)], False),
        ("1000 mixed", [1000 - i for i in range(rows)], False),
        ("1000 even", [1000] * rows, False),
        ("200 even frozen (LoRA)", [200] * rows, True),
    ):
        lm.requires_grad_(not frozen)
        s = HFSampler(lm, autocast)
        prompts = [list(range(3, 3 + (n if not SMALL else n // 10))) for n in lengths]
        new = 40 if not SMALL else 4
        durations = []
        for k in (2, new):
            t = time.perf_counter()
            s.sample(prompts, [list(range(8)) for _ in prompts], Sampling(1.0, k, (1,)))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            durations.append(time.perf_counter() - t)
        per = (durations[1] - durations[0]) / (new - 2)
        results[name] = {"ms a token": per * 1e3, "tokens/s at 256 rows": rows * 8 / per}
        save("decode", results)


def folded(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **others):
    """Attention in which, for a decode step, the query heads that share a key head are queries of that head."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    b, h, s, d = query.shape
    if s > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    out = torch.nn.functional.scaled_dot_product_attention(
        query.view(b, key.shape[1], -1, d), key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(b, 1, h, d), None


def graph():
    """Milliseconds per decode step with bfloat16 weights, a static cache and a CUDA graph."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, StaticCache
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("folded", folded)
    AttentionMaskInterface.register("folded", sdpa_mask)
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    results = {}
    lm = random_model(dtype=torch.bfloat16).eval().requires_grad_(False)
    for rows, cache_len in ((256, 512), (256, 1280), (512, 1280)) if not SMALL else ((4, 64),):
        for kind in ("folded", "sdpa"):
            lm.set_attn_implementation(kind)
            cache = StaticCache(config=lm.config, max_cache_len=cache_len)
            ids = torch.ones(rows, 1, dtype=torch.long, device=device)
            pos = torch.full((rows, 1), cache_len - 8, device=device, dtype=torch.long)
            mask = torch.zeros(rows, 1, 1, cache_len, dtype=torch.bool, device=device)
            mask[..., : cache_len - 8] = True

            def step():
                return lm(
                    input_ids=ids,
                    position_ids=pos,
                    past_key_values=cache,
                    use_cache=True,
                    attention_mask={"full_attention": mask},
                    logits_to_keep=1,
                ).logits

            try:
                with torch.no_grad():
                    eager = timed(step, 4)
                    if not gpu:
                        results[f"{rows} rows, cache {cache_len}, {kind}"] = {
                            "eager ms": eager * 1e3,
                            "logits": float(step().float().abs().sum()),
                        }
                        save("graph", results)
                        continue
                    side = torch.cuda.Stream()
                    with torch.cuda.stream(side):
                        step()
                    torch.cuda.synchronize()
                    g = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(g):
                        step()
                    replay = timed(g.replay, 8)
                    results[f"{rows} rows, cache {cache_len}, {kind}"] = {
                        "eager ms": eager * 1e3,
                        "graph ms": replay * 1e3,
                        "tokens/s": rows / replay,
                    }
                    del g
            except Exception as error:
                results[f"{rows} rows, cache {cache_len}, {kind}"] = f"{type(error).__name__}: {str(error)[:200]}"
            del cache
            save("graph", results)
            if gpu:
                torch.cuda.empty_cache()


def layer():
    """Time forward and backward of a decoder layer on 16 x 1024 tokens, by dtype of the weights, eager and compiled."""
    import torch
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    cfg = config()
    cfg._attn_implementation = "sdpa"
    results = {}
    b, s = (16, 1024) if not SMALL else (2, 16)
    for name, dtype, compiled in (
        ("float32 masters, autocast, eager (rlx now)", torch.float32, False),
        ("bfloat16 weights, eager", torch.bfloat16, False),
        ("bfloat16 weights, compiled", torch.bfloat16, True),
        ("float32 masters, autocast, compiled", torch.float32, True),
    ):
        if compiled and not gpu:
            continue
        one = Qwen2DecoderLayer(cfg, 0).to(device, dtype)
        x = torch.randn(b, s, cfg.hidden_size, device=device, dtype=dtype, requires_grad=True)
        rope = Qwen2RotaryEmbedding(cfg).to(device)(x, torch.arange(s, device=device)[None])
        f = torch.compile(one) if compiled else one

        def go():
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.float32):
                out = f(x, position_embeddings=rope)
            out.float().sum().backward()

        try:
            t = time.perf_counter()
            go()
            first = time.perf_counter() - t
            results[name] = {"ms": timed(go, 6) * 1e3, "first call s": round(first, 1)}
            if gpu:
                torch.cuda.reset_peak_memory_stats()
                go()
                results[name]["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
        except Exception as error:
            results[name] = f"{type(error).__name__}: {str(error)[:200]}"
        save("layer", results)


def head():
    """Time log-probs with gradients, 13,200 tokens x 151,936: rlx's tiles by width, and cut-cross-entropy."""
    import torch

    import rlx.numerics.output_layer.tiled as ours
    from rlx.numerics.output_layer.logprobs import Head, token_logprobs

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    n, d, v = (13200, 1536, 151936) if not SMALL else (64, 32, 4096)
    results = {}
    h = torch.randn(n, d, device=device, requires_grad=True)
    w = (torch.randn(v, d, device=device) / d**0.5).requires_grad_()
    t = torch.randint(v, (n,), device=device)

    def go(fn):
        h.grad = w.grad = None
        with torch.autocast(device, torch.bfloat16):
            out = fn()
        out.mean().backward()
        return out.detach()

    variants = {
        f"rlx, tiles of {k}": (lambda k=k: (setattr(ours, "TILE", k), token_logprobs(h, t, Head(w))[0])[1])
        for k in (2048, 8192, 32768)
    }
    try:
        from cut_cross_entropy import linear_cross_entropy

        variants["cut cross-entropy"] = lambda: -linear_cross_entropy(h.bfloat16(), w.bfloat16(), t, reduction="none")
    except Exception as error:
        results["cut cross-entropy"] = f"{type(error).__name__}: {str(error)[:120]}"
    with torch.no_grad():
        exact = (h[:256].double() @ w.double().T).log_softmax(-1).gather(1, t[:256, None])[:, 0]
    for name, fn in variants.items():
        try:
            if gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            out = go(fn)
            results[name] = {
                "ms": timed(lambda: go(fn), 4) * 1e3,
                "error": float((out[:256].double() - exact).abs().max()),
                "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if gpu else 0,
            }
        except Exception as error:
            results[name] = f"{type(error).__name__}: {str(error)[:200]}"
        save("head", results)


def lora():
    """Train three steps with LoRA."""
    runs_dir = WORK / "lora"
    shutil.rmtree(runs_dir, ignore_errors=True)
    save(
        "lora",
        {
            "run": rlx(
                *TINY,
                "--set",
                "model.lora.rank=4",
                "--set",
                "evaluation.every=0",
                "--steps",
                "3",
                "--runs-dir",
                str(runs_dir),
                limit=28,
            )
        },
    )


def unlearn():
    """Run ``rlx unlearn`` on the embedded set."""
    runs_dir = WORK / "unlearn"
    shutil.rmtree(runs_dir, ignore_errors=True)
    save(
        "unlearn",
        {
            "run": rlx(
                "unlearn", "--set", "tracker.mlflow=false", "--set", "epochs=2", "--runs-dir", str(runs_dir), limit=58
            )
        },
    )


def trl():
    """Time ``rlx train`` and TRL's GRPOTrainer: Qwen2.5-0.5B's shapes, random weights, 16 prompts x 8 x 256 tokens."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig

    folder = WORK / "random"
    shutil.rmtree(folder, ignore_errors=True)
    lm = random_model("0.5b", torch.bfloat16)
    tok = AutoTokenizer.from_pretrained(ROOT / "rlx/assets/arithmetic")
    lm.generation_config = GenerationConfig(eos_token_id=config("0.5b").vocab_size - 1, pad_token_id=0)
    lm.save_pretrained(folder)
    tok.save_pretrained(folder)
    del lm
    p = WORK / "p.jsonl"
    p.write_text(
        "".join(
            json.dumps({"prompt": f"{11 + i % 80}+{12 + 7 * i % 80}=" * (1 + i % 4), "answer": "0"}) + "\n"
            for i in range(64)
        )
    )
    group, prompts, tokens, steps = (8, 16, 256, 4) if not SMALL else (4, 4, 8, 2)
    coin = ROOT / "experiments/perf/coin.py"
    runs_dir = WORK / "pair"
    shutil.rmtree(runs_dir, ignore_errors=True)
    sets = {
        "rollout.engine": "hf",
        "rollout.samples_per_prompt": group,
        "rollout.max_new_tokens": tokens,
        "reward.name": f"{coin}:coin",
        "data.chat": "never",
        "batch.prompts": prompts,
        "batch.updates_per_rollout": 1,
        "evaluation.every": 0,
        "checkpoint.every": 1000,
        "tracker.mlflow": "false",
        "algorithm.params.dual_clip": "null",
        "model.gradient_checkpointing": "true",
    }
    results = {
        "rlx": rlx(
            "train",
            "--algo",
            "grpo",
            "--model",
            str(folder),
            "--data",
            str(p),
            "--steps",
            str(steps),
            "--runs-dir",
            str(runs_dir),
            *[x for k, v in sets.items() for x in ("--set", f"{k}={v}")],
            limit=60,
        )
    }
    if results["rlx"][1] == 0:
        results["rlx steps"] = [
            {k[5:]: m[k] for k in ("time/rollout", "time/update", "time/step")} | {"tokens": m["train/tokens"]}
            for m in metrics(runs_dir)[1:]
        ]
    save("trl", results)
    side = (
        (ROOT / "experiments/perf/trl_side.py")
        .read_text()
        .replace("use_cpu=True, ", "" if torch.cuda.is_available() else "use_cpu=True, ")
        .replace("gradient_checkpointing=False", "gradient_checkpointing=True")
    )
    (WORK / "trl_side.py").write_text(side)
    shutil.copy(coin, WORK / "coin.py")
    settings = {
        "model": str(folder),
        "dtype": "autocast",
        "micro": 16 if not SMALL else 4,
        "prompts_file": str(p),
        "folder": str(WORK / "trlout"),
        "threads": 8,
        "seed": 0,
        "dump": None,
        "prompts": prompts,
        "group": group,
        "tokens": tokens,
        "updates": 1,
        "steps": steps,
    }
    for dtype in ("autocast", "bfloat16"):
        q = subprocess.run(
            [sys.executable, str(WORK / "trl_side.py"), json.dumps(settings | {"dtype": dtype})],
            capture_output=True,
            text=True,
        )
        results[f"trl {dtype}"] = [
            json.loads(line) for line in q.stdout.splitlines() if line.startswith('{"rollout"')
        ] or q.stderr[-400:]
        save("trl", results)


def main():
    """Run the phases one after another, each in a process with its time limit."""
    name = sys.argv[1]
    if name != "all":
        return globals()[name]()
    start = time.time()
    with open(OUT / "log.txt", "w") as log:
        for phase, limit in [
            (p, s) for p, s in PHASES.items() if p in os.environ.get("PHASES", ",".join(PHASES)).split(",")
        ]:
            remaining = float(os.environ.get("BUDGET", 470)) - (time.time() - start)
            if remaining < 15:
                print("no time left for", phase, flush=True)
                continue
            log.write(f"== {phase}\n")
            log.flush()
            p = subprocess.Popen(
                [sys.executable, __file__, phase, *sys.argv[2:]], stdout=log, stderr=log, start_new_session=True
            )
            try:
                p.wait(min(limit, remaining))
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
            print(f"{phase}: rc {p.returncode}, {time.time() - start:.0f} s so far", flush=True)
    print((OUT / "all.json").read_text()[-11000:])


if __name__ == "__main__":
    main()
