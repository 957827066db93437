"""Sentences of movie reviews, each rated by 20 people, as rows for SequenceClassification.

Source: the ground truth published with Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis
of Social Media Text" (ICWSM 2014), part `movieReviewSnippets`; the sentences go back to Pang & Lee (2005). The rating
is the mean of 20 people from -4 to 4. It travels in the source distribution of `vaderSentiment` (MIT).

Must never: let a sentence stand in two splits, or copy the texts into the repository.
"""

import io
import tarfile

from finetune_demo import sources

PACKAGE = sources.PythonPackage(
    name="vaderSentiment",
    version="3.3.2",
    file_name="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    form="sdist",
)

_RATINGS_FILE = "movieReviewSnippets_GroundTruth.txt"
_MIN_RATING = 0.5  # Nearer to zero the 20 people do not agree on a sign; 10,070 of 10,605 sentences stay.
_TEST_FRACTION = 0.2
_SPLIT_SEED = 13
_NUM_TRAIN_ROWS = 2000  # Enough for MiniLM to beat word counts clearly, few enough for two CPU cores.
_NUM_VALIDATION_ROWS = 400


def build_movie_splits() -> dict[str, list[dict[str, str]]]:
    """Return the rows of train, validation and test: `sentence` and `label`, which is "negative" or "positive".

    The test rows are all of the held-out fifth; train and validation are a part of the rest.
    """
    rows = _rated_sentences()
    # Imported where rows are split: the command needs a second less where the files are there already.
    from sklearn.model_selection import train_test_split

    pool, test = train_test_split(
        rows, test_size=_TEST_FRACTION, random_state=_SPLIT_SEED, stratify=[row["label"] for row in rows]
    )
    end = _NUM_TRAIN_ROWS + _NUM_VALIDATION_ROWS
    return {"train": pool[:_NUM_TRAIN_ROWS], "validation": pool[_NUM_TRAIN_ROWS:end], "test": test}


def _rated_sentences() -> list[dict[str, str]]:
    """Return the clearly rated sentences in the order of the file, each once."""
    labels: dict[str, str] = {}
    for line in _ground_truth().splitlines():
        _, rating, sentence = line.split("\t", 2)
        if abs(float(rating)) >= _MIN_RATING:
            labels.setdefault(sentence.strip(), "positive" if float(rating) > 0 else "negative")
    return [{"sentence": sentence, "label": label} for sentence, label in labels.items()]


def _ground_truth() -> str:
    """Return the text file `id<TAB>rating<TAB>sentence`, which lies in an archive in the archive."""
    inner = sources.load_sdist_member(PACKAGE, "additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        # Matched by its whole last part: `._` companions of the same name lie beside it.
        names = [name for name in archive.getnames() if name.rpartition("/")[2] == _RATINGS_FILE]
        stream = archive.extractfile(names[0])
        assert stream is not None, names  # noqa: S101 - the pinned digest fixes what the archive holds
        return stream.read().decode("utf-8", errors="replace")  # a few bytes are in another encoding
