"""What a small board needs of split inference, without torch: payloads, entropy coders, framing of exported heads."""
