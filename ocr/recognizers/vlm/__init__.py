"""Vision-language models: Qwen2.5-VL, Qwen3-VL and what is built like them, with a LoRA adapter or without."""
