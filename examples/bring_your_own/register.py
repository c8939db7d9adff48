"""Register a model that was trained elsewhere, with its training record. Run it in this folder."""

import wine_data
import wine_model

from oubli.components.model.losses import cross_entropy
from oubli.registry.models.trained_models import register_trained
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import FactoryReference, Split, TrainingRecord, VectorDecoder
from oubli.registry.training.writing import write_training_data

record = TrainingRecord(
    dataset=write_training_data(wine_data.table(), "wine/wine.parquet", subject_column="cellar"),
    decoder=VectorDecoder(columns=("measurements",)),
    loss="cross_entropy",
    l2=1e-2,
    n=142,
    seed=0,
    factory=FactoryReference(target="wine_model:build", kwargs={"width": 16}),
    retrain=FactoryReference(target="wine_model:fit", kwargs={"epochs": 300}),
    convex=False,
)
samples = TrainingData.of(record).samples(Split.TRAIN).load()
module = wine_model.fit(wine_model.build(width=16), samples, loss=cross_entropy, l2=1e-2, seed=0, epochs=300)
print(register_trained("wine", module, record).label)
