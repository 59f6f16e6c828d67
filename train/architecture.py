"""The architectures by name, without importing torch: for --help and checks of settings."""

# name -> timm's name and the arguments that make it MoCo v3's. The official ViT-S has 12 heads
# where timm's has 6 (moco-v3, vits.py); timm has no ViT-Ti/8, which is for small machines.
VITS = {
    "vit_ti8": ("vit_tiny_patch16_224", {"patch_size": 8}),
    "vit_s8": ("vit_small_patch8_224", {"num_heads": 12}),
    "vit_b8": ("vit_base_patch8_224", {}),
}
# A slim ResNet-18 that ends at a stride of 16, so that 40 px leave 3 x 3 places. On one core it
# trains on 2.5 times as many images a second as ViT-Ti/8.
RESNETS = {"resnet18s": ("resnet18", {"channels": [48, 96, 192, 384], "output_stride": 16})}
ENCODERS = VITS | RESNETS
WIDTHS = {"vit_ti8": 192, "vit_s8": 384, "vit_b8": 768}  # of a ViT's token
DINO_HEADS = {"vit_s8": 6}  # where they are not MoCo v3's (dinov2, vision_transformer.py)
PATCH_PX = 8  # side of a patch
