"""Own code of the models against libraries that could replace it: neighbors, text vectors, encoder graphs.

onnxscript aside, none is a dependency: `uv pip install sparse-dot-topn scikit-learn onnxslim` first.
`python -m benchmarks.model_libraries [neighbors|texts|graphs ...] [--rounds 5]`; decision 0017 quotes the tables.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from testing.temporary_folder import temporary_folder

ITEMS, USERS, EVENTS, NEIGHBORS = 10_000, 20_000, 1_000_000, 100
TITLES: Final = 20_000
SIZE: Final = 64
NEAREST: Final = 10
HISTORY: Final = 50
LOOKUPS: Final = 400
ENCODERS: Final = ("transformer", "dnn", "cnn", "rnn")


def alternate(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Each call once a round, in turn: prints median, least and most seconds; returns the last results by name."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            results[name] = call()
            seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        print(f"  {name:<46} {np.median(times):8.3f} s [{min(times):.3f}, {max(times):.3f}]")
    return results


def neighbors(rounds: int) -> None:
    """The largest entries of each row of an item-item matrix: ours, and sparse-dot-topn."""
    from scipy import sparse
    from sparse_dot_topn import sp_matmul_topn

    from models.recommenders.item_item import largest_in_rows

    rng = np.random.default_rng(0)
    popular = 1 / np.arange(1, ITEMS + 1) ** 0.8
    items = rng.choice(ITEMS, EVENTS, p=popular / popular.sum())
    entries = (np.ones(EVENTS, np.float32), (rng.integers(0, USERS, EVENTS), items))
    taken = sparse.csr_matrix(entries, (USERS, ITEMS))
    taken.data[:] = 1.0
    counts = (taken.T @ taken).tocsr()
    counts.setdiag(0)
    counts.eliminate_zeros()
    print(f"neighbors: {ITEMS:,} items, {counts.nnz:,} pairs, the {NEIGHBORS} largest of each row")
    identity = sparse.eye(ITEMS, dtype=np.float32, format="csr")
    results = alternate(
        {
            "ours (largest_in_rows)": lambda: largest_in_rows(counts, NEIGHBORS),
            "sparse-dot-topn, times the identity": lambda: sp_matmul_topn(counts, identity, NEIGHBORS, sort=True),
            "ours, with the product": lambda: largest_in_rows((taken.T.tocsr() @ taken).tocsr(), NEIGHBORS),
            "sparse-dot-topn, product and top n in one": lambda: sp_matmul_topn(
                taken.T.tocsr(), taken, NEIGHBORS, sort=True
            ),
        },
        rounds,
    )
    columns, _ = results["ours (largest_in_rows)"]
    theirs = results["sparse-dot-topn, times the identity"]
    same = 0
    for row in range(ITEMS):
        other = theirs.indices[theirs.indptr[row] : theirs.indptr[row + 1]]
        same += len(np.intersect1d(columns[row], other))
    print(f"  same neighbors: {same / max(1, int((columns >= 0).sum())):.4f} (the rest: ties at the last place)")


def texts(rounds: int) -> None:
    """Vectors of product titles: ours, and scikit-learn with the same tokens and with its own."""
    import polars as pl
    import psutil

    from models.data import text_vectors
    from stream.sources.complete_journey import package_folder

    products = pl.read_parquet(package_folder() / "products.parquet").drop_nulls(["product_type", "product_category"])
    products = products.sample(TITLES, seed=0)
    titles = pl.concat_str(pl.col("product_type"), pl.col("package_size").fill_null(""), separator=", ")
    names: list[str] = products.select(titles.alias("title"))["title"].to_list()
    categories = products["product_category"].to_numpy()
    before, started = psutil.Process().memory_info().rss, time.process_time()
    import sklearn.decomposition
    import sklearn.feature_extraction.text  # noqa: F401 - what the import costs is measured

    grown = psutil.Process().memory_info().rss - before
    print(
        f"texts: {TITLES:,} titles; scikit-learn's import: {grown / 1e6:.0f} MB, {time.process_time() - started:.1f} s"
    )
    results = alternate(
        {
            "ours (hashed words and letters, TF-IDF, SVD)": lambda: text_vectors.vectors(names, SIZE),
            "scikit-learn, the same tokens": lambda: _sklearn_vectors(names, own_tokens=True),
            "scikit-learn, its own tokens": lambda: _sklearn_vectors(names, own_tokens=False),
        },
        rounds,
    )
    sample = np.random.default_rng(0).choice(len(names), 1_000, replace=False)
    for name, vectors in results.items():
        cosines = vectors[sample] @ vectors.T
        cosines[np.arange(len(sample)), sample] = -2.0
        nearest = np.argpartition(-cosines, NEAREST, axis=1)[:, :NEAREST]
        share = float((categories[nearest] == categories[sample][:, None]).mean())
        print(f"  {name:<46} {share:.4f} of the {NEAREST} nearest are of the same category")


def _sklearn_vectors(names: list[str], *, own_tokens: bool) -> Any:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import Normalizer

    from models.data.text_vectors import COLUMNS, LETTERS, WORD

    def tokens(text: str) -> list[str]:
        words = WORD.findall(text.lower())
        spaced = [f" {word} " for word in words]
        groups = (word[at : at + LETTERS] for word in spaced for at in range(len(word) - LETTERS + 1))
        return [*words, *(f"#{group}" for group in groups)]

    common: dict[str, Any] = {"n_features": COLUMNS, "norm": None, "alternate_sign": False}
    hashing = HashingVectorizer(analyzer=tokens, **common)
    if not own_tokens:
        letters = HashingVectorizer(analyzer="char_wb", ngram_range=(LETTERS, LETTERS), **common)
        hashing = make_union(HashingVectorizer(token_pattern=WORD.pattern, **common), letters)
    svd = TruncatedSVD(SIZE, algorithm="arpack", random_state=0)
    pipeline = make_pipeline(hashing, TfidfTransformer(sublinear_tf=True), svd, Normalizer())
    return pipeline.fit_transform(names).astype(np.float32)


def graphs(rounds: int) -> None:
    """One history through each encoder as converted, by our rules, and by those of onnxslim and of onnxscript."""
    import onnx
    import onnxruntime

    from models.recommenders.item_product import options_of
    from models.recommenders.neural.onnx_graph import simplify

    for encoder in ENCODERS:
        raw, inputs = _converted(encoder)
        models = {"as converted": raw}
        models["our rules for onnxscript (onnx_graph)"] = simplify(onnx.load_from_string(raw.SerializeToString()))
        models["onnxslim"] = _onnxslim(raw)
        models["onnxscript, its own rules"] = _onnxscript(raw)
        models["onnxscript, its LayerNormalization fusion"] = _onnxscript(raw, fuse=True)
        print(f"graphs: {encoder}, one history of {HISTORY}")
        sessions, outputs = {}, {}
        for name, model in models.items():
            try:
                session = onnxruntime.InferenceSession(
                    model.SerializeToString(), options_of(), providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                print(f"  {name:<46} does not load: {error}")
                continue
            known = {port.name for port in session.get_inputs()}
            fed = {port: array for port, array in inputs.items() if port in known}
            sessions[name] = (session, fed)
            outputs[name] = session.run(None, fed)[0]
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(rounds):
            for name, (session, fed) in sessions.items():
                started = time.perf_counter()
                for _ in range(LOOKUPS):
                    session.run(None, fed)
                times[name].append((time.perf_counter() - started) / LOOKUPS * 1e6)
        for name, values in times.items():
            nodes = Counter(node.op_type for node in models[name].graph.node)
            error = float(np.abs(outputs[name] - outputs["as converted"]).max())
            counted = f"{nodes.total():3d} nodes, {nodes['LayerNormalization']} norms"
            spread = f"[{min(values):.0f}, {max(values):.0f}]"
            print(f"  {name:<46} {np.median(values):6.0f} us {spread}, {counted}, largest difference {error:.1e}")


def _converted(encoder: str) -> tuple[Any, dict[str, Any]]:
    """A transformer or other encoder as TensorFlow's converter writes it, and one history."""
    import msgspec
    import onnx

    from models.recommenders.neural import export
    from models.recommenders.neural.network import Network, folded
    from models.recommenders.neural.params import Params

    network = Network(np.zeros(1_000, np.int32), msgspec.convert({"encoder": encoder}, Params))
    network.ready()
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 0.2, weights.shape) for weights in network.get_weights()])
    with temporary_folder("coldstream-graphs-") as folder:
        path = Path(folder) / "encoder.onnx"
        export.convert(folded(network), path)
        model = onnx.load(path)
    shape = (1, network.params.length)
    inputs = {"items": rng.integers(1, 1_000, shape), "kinds": np.ones(shape), "gaps": rng.integers(1, 6, shape)}
    return model, {name: array.astype(np.int32) for name, array in inputs.items()}


def _onnxslim(model: Any) -> Any:
    import onnx
    import onnxslim

    return onnxslim.slim(onnx.load_from_string(model.SerializeToString()))


def _onnxscript(model: Any, *, fuse: bool = False) -> Any:
    import onnx_ir
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules.fusion import _layer_norm

    graph = onnx_ir.from_proto(model)
    optimizer.optimize(graph)
    if fuse:
        _layer_norm.fuse_layer_normalization(graph)
    return onnx_ir.to_proto(rewriter.rewrite(graph))


def main() -> None:
    """The command."""
    parts = {"neighbors": neighbors, "texts": texts, "graphs": graphs}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_libraries", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts), help=f"any of {', '.join(parts)}; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name in options.parts:
        parts[name](options.rounds)


if __name__ == "__main__":
    main()
