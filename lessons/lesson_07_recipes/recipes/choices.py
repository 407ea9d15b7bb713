"""The design choices that published ablations vary, under the axes of a vision-language model."""

from dataclasses import dataclass

AXES = ("encoder", "connector", "resolution", "language model", "data", "training")


@dataclass(frozen=True)
class Choice:
    """A decision between two settings, a and b, that several papers may have compared.

    axis      one of AXES
    question  what is decided, as a question that "yes" answers with setting b
    cheaper   "a" or "b": the setting that costs less to train or to run, taken when the evidence does not decide
    """

    name: str
    axis: str
    question: str
    cheaper: str = "a"


CHOICES = {
    choice.name: choice
    for choice in (
        Choice("contrastive-encoder", "encoder", "An encoder trained with captions instead of images or labels only?"),
        Choice("siglip-encoder", "encoder", "SigLIP-SO400M instead of CLIP?"),
        Choice("fused-encoders", "encoder", "A second encoder beside SigLIP or CLIP?"),
        Choice("larger-encoder", "encoder", "A larger encoder of the same kind?"),
        Choice("encoder-data", "encoder", "An encoder trained on more and filtered data?"),
        Choice("two-encoder-layers", "encoder", "Features from two layers of the encoder instead of one?"),
        Choice("resampler", "connector", "Learned pooling by attention instead of a linear layer or an MLP?"),
        Choice("spatial-connector", "connector", "Cross-attention within image regions (Spatial Vision Aggregator)?"),
        Choice("convolutional-connector", "connector", "A convolutional connector (C-Abstractor, LDPv2)?"),
        Choice("deeper-connector", "connector", "More layers in the connector?"),
        Choice("mlp-before-pooling", "connector", "An MLP before the pooling by attention?"),
        Choice("cross-attention", "connector", "Cross-attention layers instead of image tokens in the sequence?"),
        Choice("more-visual-tokens", "connector", "More than 64 visual tokens per image from the same connector?"),
        Choice("higher-resolution", "resolution", "A higher input resolution?"),
        Choice("image-crops", "resolution", "Crops (tiles) of the image beside the whole image?"),
        Choice("overlapping-crops", "resolution", "Crops that overlap?"),
        Choice("keep-aspect-ratio", "resolution", "Keep the aspect ratio instead of resizing to a square?"),
        Choice("keep-whole-image", "resolution", "Resize the whole image instead of cropping its center?"),
        Choice("stronger-lm", "language model", "A language model of equal size with better text scores?"),
        Choice("larger-lm", "language model", "A larger language model?"),
        Choice("instruct-lm", "language model", "An instruction-tuned language model instead of its base model?"),
        Choice("better-captions", "data", "Captions written by a model or by annotators instead of web alt-texts?"),
        Choice("more-caption-data", "data", "More captioned images?"),
        Choice("interleaved-data", "data", "Interleaved image-text documents instead of captions only?"),
        Choice("document-data", "data", "Documents and charts in the mix?"),
        Choice("text-only-data", "data", "Text-only data in the mix?"),
        Choice("more-instruction-data", "data", "More, and more diverse, instruction data?"),
        Choice("balanced-data", "data", "Limits per source and balanced categories instead of everything?", "b"),
        Choice("connector-pretraining", "training", "A first stage that trains the connector alone?"),
        Choice("train-vision-encoder", "training", "Train the vision encoder instead of freezing it?"),
        Choice("more-epochs", "training", "More epochs over the instruction data?"),
    )
}
