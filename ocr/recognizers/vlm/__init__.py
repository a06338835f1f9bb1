"""Vision-language models: Qwen2.5-VL, Qwen3-VL and models built like them, with or without LoRA."""
