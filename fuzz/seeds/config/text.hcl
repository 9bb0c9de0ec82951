a = <<-EOT
  one
  EOT
b = "x ${env("HOME")} \t"
# c
// c
/* c */
c = 0x10
