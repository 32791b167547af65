"""Learning representations by denoising."""
