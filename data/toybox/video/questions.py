"""Questions about a clip with their answers: twelve types, balanced against a blind guesser and a single frame.

Eight types are temporal, four are about appearance and are answered by the middle frame. As for images, the answer is
drawn first, and so is the kind of event that the question names: neither reveals the other. The generator makes a
clip and its reverse equally likely and draws all events independently of the middle frame. A temporal question adds
what this does not cover:

order, state  both events lie in the same half, so the middle frame shows both objects before, or both after, the events
direction     names one axis, and the reversed clip has the other answer
which, faster both named objects stay in the clip
when          no entering or leaving object, whose presence in the middle would reveal the half
count         the description does not mention the attribute that may change

The answer to a temporal question is therefore at chance for a model that receives the middle frame, or one frame from
an unknown time. Certain other frames reveal more: an object at the left border in the first frame can only
move right.
"""

import re
from collections.abc import Iterator
from itertools import permutations
from random import Random

from data.toybox.heldout import SPLITS, check_split
from data.toybox.language import NUMBERS, Description, words
from data.toybox.scene import pick, stream
from data.toybox.video.clip import CHANGES, KINDS, Clip, Event, events_of, is_always_present, objects_at_time
from data.toybox.video.generation import QUESTION_PURPOSE, ClipSettings, clip_at
from data.toybox.video.language import THIRD_PERSON, VERB, constant_attributes, refer_in_clip, vocabulary_texts
from data.toybox.video.question_types import (
    ANSWERS,
    APPEARANCE_TYPES,
    AXES,
    FORMS,
    LENGTHS_OF,
    QUESTION_TYPES,
    TEMPLATES,
    ClipQuestion,
    Form,
)


def question_about_clip_at(
    split: str,
    seed: int,
    number: int,
    question_type: str | None = None,
    *,
    seconds: tuple[float, float] = (2, 16),
    least_gap: int = 500,
) -> tuple[Clip, ClipQuestion]:
    """Return question `number` of a split and seed, and its clip; of one type, or of all types with equal probability.

    seconds    least and greatest length of the clip
    least_gap  milliseconds between the two events whose order an answer depends on

    Raises ValueError for an unknown split or type, or where no clip of such a length has the question.
    """
    check_split(split)
    if question_type is not None and question_type not in QUESTION_TYPES:
        raise ValueError(f"no question type {question_type!r}: choose one of {', '.join(QUESTION_TYPES)}")
    index = QUESTION_TYPES.index(question_type) if question_type else len(QUESTION_TYPES)
    rng = stream(seed, 16 * number + index, QUESTION_PURPOSE + SPLITS.index(split))
    question_type = question_type or pick(rng, QUESTION_TYPES)
    lengths = [length for length in LENGTHS_OF[question_type] if seconds[0] <= length <= seconds[1]]
    if not lengths:
        raise ValueError(
            f"no {question_type!r} question about a clip of {seconds[0]:g} to {seconds[1]:g} s: expected a length "
            f"from {LENGTHS_OF[question_type][0]:g} to {LENGTHS_OF[question_type][-1]:g} s"
        )
    form, length = pick(rng, FORMS[question_type]), pick(rng, lengths)
    # The named kinds are frequent, or the search would take long.
    settings = ClipSettings(
        (1 if question_type in APPEARANCE_TYPES else 2, 4), (length, length), KINDS + 3 * form.kinds
    )
    for attempt in range(20_000):
        # A large offset, so that no two questions share their later clips.
        clip = clip_at(split, seed, number + attempt * 2**40, settings)
        question = make_clip_question(clip, question_type, form, rng, least_gap)
        if question:
            return clip, question
    raise ValueError(
        f"no clip of {length:g} s has a {question_type!r} question with {form} and a gap of {least_gap} ms"
    )


def make_clip_question(
    clip: Clip, question_type: str, form: Form, rng: Random, least_gap: int = 500
) -> ClipQuestion | None:
    """Return a question of a type and form about a clip, or None when there is none.

    Raises ValueError for a form that the type never has.
    """
    if form not in FORMS.get(question_type, ()):
        raise ValueError(f"a question of type {question_type!r} never has the form {form}")
    if question_type in APPEARANCE_TYPES:
        return _ask_appearance(clip, question_type, form, rng)
    if question_type in ("order", "state"):
        return _ask_two_events(clip, question_type, form, rng, least_gap)
    if question_type in ("which", "faster"):
        return _ask_two_objects(clip, question_type, form, rng)
    return _ask_one_object(clip, question_type, form, rng)


def _ask_appearance(clip: Clip, question_type: str, form: Form, rng: Random) -> ClipQuestion | None:
    middle = objects_at_time(clip, clip.seconds / 2)
    fitting = []
    for target, state in enumerate(middle):
        if (
            state
            and getattr(state, question_type) == form.answer
            and question_type in constant_attributes(clip, target)
        ):
            description = refer_in_clip(clip, target, rng, excluded=(question_type,))
            if description:
                fitting.append(description)
    if not fitting:
        return None
    text = TEMPLATES[question_type].format(first=words(pick(rng, fitting)))
    return ClipQuestion(question_type, text, form.answer, clip.duration // 2, clip.duration // 2)


def _ask_one_object(clip: Clip, question_type: str, form: Form, rng: Random) -> ClipQuestion | None:
    """Ask for the direction, number, duration or start of the events of one kind of one object."""
    kind, fitting = form.kinds[0], []
    for target in range(len(clip.objects)):
        events = events_of(clip, target, kind)
        description = refer_in_clip(clip, target, rng, excluded=(kind,)) if is_always_present(clip, target) else None
        if description and _answer(question_type, events) == form.answer:
            fitting.append((description, events))
    if not fitting:
        return None
    description, events = pick(rng, fitting)
    verb = "start to move" if question_type == "when" and kind == "move" else VERB[kind]
    text = TEMPLATES[question_type].format(first=words(description), verb=verb, options=AXES.get(form.answer))
    start, end = (events[0].start, events[-1].end) if events else (0, clip.duration)
    return ClipQuestion(question_type, text, form.answer, start, end)


def _answer(question_type: str, events: list[Event]) -> str | None:
    """Return the answer for the events of one kind of one object, or None when the question is ambiguous."""
    if question_type == "count":
        return NUMBERS[len(events)] if len(events) < len(NUMBERS) else None
    if len(events) != 1:
        return None
    (event,) = events
    if question_type == "direction":
        return event.direction
    milliseconds = event.start if question_type == "when" else event.end - event.start
    return str(milliseconds // 1000) if milliseconds % 1000 == 0 else None


def _ask_two_objects(clip: Clip, question_type: str, form: Form, rng: Random) -> ClipQuestion | None:
    """Ask which of two objects, each identified by its shape, has an event of a kind, or moves faster."""
    kind, fitting = form.kinds[0], []
    shapes = [state.shape for state in clip.objects]
    targets = [
        target for target in range(len(shapes)) if shapes.count(shapes[target]) == 1 and is_always_present(clip, target)
    ]
    for a, b in permutations(targets, 2):
        first, second = events_of(clip, a, kind), events_of(clip, b, kind)
        if question_type == "which":
            fits = bool(first) and not second
        else:
            fits = len(first) == len(second) == 1 and first[0].speed >= 1.5 * second[0].speed
        if fits:
            events = first + second
            fitting.append((a, b, min(event.start for event in events), max(event.end for event in events)))
    if not fitting:
        return None
    a, b, start, end = pick(rng, fitting)
    names = (shapes[a], shapes[b]) if rng.random() < 0.5 else (shapes[b], shapes[a])
    text = TEMPLATES[question_type].format(first=names[0], second=names[1], verb=THIRD_PERSON[kind])
    return ClipQuestion(question_type, text, shapes[a], start, end)


def _ask_two_events(clip: Clip, question_type: str, form: Form, rng: Random, least_gap: int) -> ClipQuestion | None:
    """Ask for the order of two events of two objects, or for the state of one object when another has an event."""
    a_is_first = form.answer in ("yes", "after")
    fitting = []
    for a, b in _event_pairs(clip, form.kinds):
        gap = b.start - a.start if a_is_first else a.start - b.start
        same_half = (a.start < clip.duration // 2) == (b.start < clip.duration // 2)
        if gap >= least_gap and same_half and (question_type == "order" or _is_present(clip, a.target, b.start)):
            first, second = (refer_in_clip(clip, event.target, rng) for event in (a, b))
            if first and second:
                fitting.append((a, b, first, second))
    if not fitting:
        return None
    return _word_two_events(question_type, form, pick(rng, fitting), rng)


def _word_two_events(
    question_type: str, form: Form, pair: tuple[Event, Event, Description, Description], rng: Random
) -> ClipQuestion:
    a, b, first, second = pair
    start, end = min(a.start, b.start), max(a.end, b.end)
    names = {"first": words(first), "second": words(second)}
    if question_type == "order":
        text = TEMPLATES["order"].format(**names, verb=VERB[a.kind], other_verb=THIRD_PERSON[b.kind])
        return ClipQuestion("order", text, form.answer, start, end)
    values = [getattr(a.before, a.kind), getattr(a.after, a.kind)]
    answer = values[form.answer == "after"]
    if rng.random() < 0.5:
        values.reverse()
    verb = THIRD_PERSON[b.kind] if b.kind in CHANGES else f"starts to {VERB[b.kind]}"
    text = TEMPLATES["state"].format(**names, options=" or ".join(values), verb=verb)
    return ClipQuestion("state", text, answer, start, end)


def _event_pairs(clip: Clip, kinds: tuple[str, ...]) -> Iterator[tuple[Event, Event]]:
    """Yield pairs of events of two objects and these two kinds, each the only event of its kind of its object."""
    for a, b in permutations(clip.events, 2):
        if a.target != b.target and (a.kind, b.kind) == kinds and _is_unique(clip, a) and _is_unique(clip, b):
            yield a, b


def _is_unique(clip: Clip, event: Event) -> bool:
    """Return whether an object has no other event of the kind; one that moves does not enter or leave either."""
    if event.kind == "move" and not is_always_present(clip, event.target):
        return False
    return len(events_of(clip, event.target, event.kind)) == 1


def _is_present(clip: Clip, target: int, milliseconds: int) -> bool:
    """Return whether an object rests or moves inside the world, and neither enters nor leaves, at a time."""
    passages = events_of(clip, target, "enter", "leave")
    entered = all(event.end <= milliseconds for event in passages if event.kind == "enter")
    return entered and all(event.start >= milliseconds for event in passages if event.kind == "leave")


def clip_vocabulary() -> tuple[str, ...]:
    """Return every word that captions, timelines, questions and answers about clips add to those about images, sorted.

    Whole numbers and fractions of a second are not listed: a tokenizer may split them into digits.
    """
    texts = [*vocabulary_texts(), *(re.sub(r"\{\w+\}", "", template) for template in TEMPLATES.values())]
    texts += [*AXES.values(), "starts to", "start to move"]
    texts += [answer for answers in ANSWERS.values() for answer in answers if not answer.isdigit()]
    return tuple(sorted({word for text in texts for word in re.findall(r"[a-z]+", text)}))
