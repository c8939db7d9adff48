"""Register a model that was trained elsewhere, with its training record. Run it in this folder."""

import wine_data
import wine_model

from oubli import registry
from oubli.components.model.losses import cross_entropy

record = registry.TrainingRecord(
    dataset=registry.write_training_data(wine_data.table(), "wine/wine.parquet", subject_column="cellar"),
    decoder=registry.VectorDecoder(columns=("measurements",)),
    loss="cross_entropy",
    l2=1e-2,
    n=142,
    seed=0,
    factory=registry.FactoryReference(target="wine_model:build", kwargs={"width": 16}),
    retrain=registry.FactoryReference(target="wine_model:fit", kwargs={"epochs": 300}),
    convex=False,
)
samples = registry.TrainingData.of(record).samples(registry.Split.TRAIN).load()
module = wine_model.fit(wine_model.build(width=16), samples, loss=cross_entropy, l2=1e-2, seed=0, epochs=300)
print(registry.register_trained("wine", module, record).label)
