"""Window features contain every pixel and the position of its window; drawings show an image and its attention maps."""

from shared.stdlib import digits
from shared.stdlib.digit_windows import FEATURES, draw_attention, window_features


def test_features_are_the_pixels_and_the_position_of_each_window():
    image = digits.load().images[0]
    features = window_features([image]).tolist()[0]
    assert len(features) == 9 and {len(vector) for vector in features} == {FEATURES} == {22}
    for number, vector in enumerate(features):
        row, column = divmod(number, 3)
        window = [image[(2 * row + y) * 8 + 2 * column + x] / 16 for y in range(4) for x in range(4)]
        assert vector[:16] == window
        assert vector[16:19].index(1.0) == row and vector[19:].index(1.0) == column and sum(vector[16:]) == 2.0


def test_attention_is_drawn_beside_the_image_where_its_windows_lie():
    image = [0] * 64
    image[9] = 16
    lines = draw_attention(image, [[1.0] + [0.0] * 8 + [9.0], [0.0] * 8 + [1.0]]).split("\n")
    assert len(lines) == 8 and {len(line) for line in lines} == {3 * (2 + 16)}
    drawings = [[line[2 + 18 * k : 18 + 18 * k] for line in lines] for k in range(3)]
    assert [(y, line.index("@")) for y, line in enumerate(drawings[0]) if "@" in line] == [(1, 2)]
    assert [line for line in drawings[1] if "@" in line] == ["@@@@@@" + " " * 10] * 3
    assert [y for y, line in enumerate(drawings[2]) if "@" in line] == [5, 6, 7]
