# What a program does with the real client; run inside the runner by tests/mlflow.rs.
import json, os, sys, tempfile
import mlflow
import numpy as np
from mlflow.tracking import MlflowClient

mode = sys.argv[1]
if mode in ("plain", "forwarded"):
    mlflow.set_experiment("whatever")
    assert ("MLFLOW_RUN_ID" in os.environ) == (mode == "plain")
    with mlflow.start_run(run_name="first" if mode == "forwarded" else None) as run:
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({"epochs": 3, "ünï": "x" * 50})
        for step in range(5):
            mlflow.log_metric("acc", 0.5 + step / 10, step=step)
        mlflow.log_metrics({"val/loss": 0.25, "odd": float("nan")}, step=7)
        mlflow.set_tag("team", "vision")
        mlflow.log_text("hello", "notes/a b+c.txt")
        mlflow.log_dict({"a": 1}, "conf.json")
        big = os.path.join(tempfile.mkdtemp(), "big.bin")
        with open(big, "w") as f:
            f.write("z" * 3_000_000)
        mlflow.log_artifact(big, "blobs")
        try:
            mlflow.log_param("lr", 0.2)
            raise SystemExit("a changed param was taken")
        except mlflow.exceptions.MlflowException:
            pass
        with mlflow.start_run(run_name="child", nested=True):
            mlflow.log_metric("acc", 0.1)
            mlflow.log_text("c", "c.txt")
        client = MlflowClient()
        assert len(client.get_metric_history(run.info.run_id, "acc")) == 5
        assert {a.path for a in client.list_artifacts(run.info.run_id)} >= {"notes", "conf.json", "blobs"}
        assert mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/a b+c.txt") == "hello"
        children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'", output_format="list")
        assert [c.info.run_name for c in children] == ["child"], children
        data = mlflow.get_run(run.info.run_id).data
        assert data.params["lr"] == "0.1" and data.metrics["val/loss"] == 0.25, data
else:
    from sklearn import datasets, svm
    mlflow.autolog()
    digits = datasets.load_digits()
    model = svm.SVC(gamma=0.001)
    model.fit(digits.data[:900], digits.target[:900])
    print("score", model.score(digits.data[900:], digits.target[900:]))
    info = mlflow.sklearn.log_model(model, name="mine")
    loaded = mlflow.sklearn.load_model(info.model_uri)
    assert (loaded.predict(digits.data[:50]) == model.predict(digits.data[:50])).all()
