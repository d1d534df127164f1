"""Serve the trained model over HTTP: ``/predict``, ``/healthz`` and ``/version``.

The settings come from the environment: ``MODEL_PATH`` names the model's file, or ``MODEL_URI`` its address, and ``MODEL_SHA256`` its
checksum; ``PORT`` (8080) and ``LOG_LEVEL`` (info) say the rest. Each answer names what gave it: the model's checksum, the run that
trained it (``MODEL_RUN_ID``) and the image (``IMAGE_DIGEST``), as the deployment set them.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import artifact
import joblib
import sklearn
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

DIAGNOSES = ("malignant", "benign")


class Request(BaseModel):
    """Tumours to diagnose: a list of the measurements of each, in the order of the training table."""

    instances: list[list[float]] = Field(min_length=1, max_length=1000)


class Prediction(BaseModel):
    """One diagnosis, and the probability (0 to 1) that the tumour is benign."""

    diagnosis: str
    benign: float


class ServedBy(BaseModel):
    """What gave an answer: `trainshed trace` leads from it to the data and the commit. Empty where a deployment does not say it."""

    service: str = "predictor"
    image: str
    model: str
    run: str


class Answer(BaseModel):
    """One prediction per instance, in the order of the request."""

    predictions: list[Prediction]
    served_by: ServedBy


def create(model_path: Path, *, image: str = "", run: str = "") -> FastAPI:
    """Load a model that scikit-learn fitted and joblib saved; return the application that serves it.

    Args:
        model_path: of the file.
        image: the digest of the image that serves.
        run: the id of the run that trained the model.

    Raises:
        OSError: the file cannot be read.
    """
    content = model_path.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    model: Any = joblib.load(io.BytesIO(content))
    served_by = ServedBy(image=image, model=digest, run=run)
    app = FastAPI(title="predictor", summary="Diagnoses tumours from their measurements.")

    @app.post("/predict")
    def predict(request: Request) -> Answer:
        wanted = model.n_features_in_
        for number, instance in enumerate(request.instances):
            if len(instance) != wanted:
                raise HTTPException(422, f"instances[{number}]: expected {wanted} measurements, not {len(instance)}")
            # Not by pydantic: its refusal repeats the number, and JSON knows no infinity.
            if not all(map(math.isfinite, instance)):
                raise HTTPException(422, f"instances[{number}]: expected finite numbers")
        benign = model.predict_proba(request.instances)[:, 1]
        predictions = [Prediction(diagnosis=DIAGNOSES[int(p >= 0.5)], benign=round(float(p), 4)) for p in benign]
        return Answer(predictions=predictions, served_by=served_by)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/version")
    def version() -> dict[str, str]:
        return {"service": "predictor", "model": digest, "scikit-learn": sklearn.__version__}

    return app


def main() -> None:
    try:
        # A model is loaded as a program is: what is not the deployed one must not get that far.
        model = artifact.ready(os.environ, Path(tempfile.mkdtemp(prefix="model-")))
        app = create(model, image=os.environ.get("IMAGE_DIGEST", ""), run=os.environ.get("MODEL_RUN_ID", ""))
    except artifact.ModelError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"the model cannot be read: {error}")
    # Every address of the container: what reaches it is decided by the service's network.
    uvicorn.run(app, host="0.0.0.0", port=int(os.environ.get("PORT", "8080")), log_level=os.environ.get("LOG_LEVEL", "info"))  # noqa: S104


if __name__ == "__main__":
    main()
